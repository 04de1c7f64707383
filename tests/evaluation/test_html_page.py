"""The HTML page of neighbors."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from problems import LABELS, NEITHER, SHOWN, shown

pytestmark = pytest.mark.framework_independent


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_page_shows_each_query_with_its_neighbors(tmp_path, labels):
    shown(labels).save_html(tmp_path / "found.html", "A & B")
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page
    assert ("the same class as the query" in page) == (labels is not None)
    rows = page.split('<div class="row">')[1:]
    for row, (query, found, colors) in zip(rows, SHOWN, strict=True):
        cells = re.findall(
            r'<figure class="(\w*)" style="(.*?)"><img src="data:image/png;base64,(.*?)" '
            r'alt="(.*?)" title="(.*?)"><figcaption>(.*?)</figcaption></figure>',
            row,
        )
        for cell, i, color in zip(cells, [query, *found], ["", *colors], strict=True):
            kind, style, data, alt, title, caption = cell
            assert np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[0, 0, 0] == i
            name = f"&lt;{i}&gt;.jpg"
            assert (kind, alt, title) == ("" if color else "query", name, name)
            assert caption == f"{name}<br>" + (f"{0.9 - 0.1 * i:.3f}" if color else "")
            color = NEITHER if color and labels is None else color
            assert style == (f"border-color: {color}" if color else "")
