"""The HTML page of neighbors."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from problems import LABELS, SHOWN, named, page_data, shown

from instdisc_core.data import ImageArray
from instdisc_core.evaluation import Retrieval

pytestmark = pytest.mark.framework_independent


def brightness(data):
    """The sum of the channels of the top left pixel in a thumbnail."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))[0, 0].sum()


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_page_shows_each_query_with_its_neighbors_and_each_image_once(tmp_path, labels):
    shown(labels).save_html(tmp_path / "found.html", "A & B")
    assert "<h1>A &amp; B</h1>" in (tmp_path / "found.html").read_text(encoding="utf-8")
    data = page_data(tmp_path / "found.html")
    assert sorted(data["names"]) == [f"<{i}>.jpg" for i in range(6)]
    numbers = [int(name[1]) for name in data["names"]]
    assert len(data["keys"]) == 6
    found = [[numbers[query], [numbers[i] for i in row]] for query, row, _ in data["rows"]]
    assert found == [[query, row] for query, row, _ in SHOWN]
    scores = [row[2] for row in data["rows"]]
    assert scores == [[900 - 100 * i for i in row] for _, row, _ in SHOWN]
    if labels is None:
        assert data["labels"] is None
    else:
        assert data["labels"] == [labels[i] for i in numbers]
        assert data["classes"] == ["0", "1"]


def test_thumbnails_are_those_of_the_images(tmp_path):
    images = (
        np.zeros((4, 8, 8, 3), "uint8") + np.arange(0, 200, 50, dtype="uint8")[:, None, None, None]
    )
    source, other = ImageArray(images), ImageArray(255 - images[:2], names=["image 1", "x"])
    found = Retrieval(other, source, np.array([1]), np.array([[1, 0]]), np.array([[0.9, 0.8]]))
    found.save_html(tmp_path / "found.html")
    data = page_data(tmp_path / "found.html")
    assert data["names"] == ["image 0", "image 1", "x"]  # "image 1" of the gallery, and the query
    (row,) = data["rows"]
    assert row[0] == 2
    assert [brightness(key) // 30 for key in data["keys"]] == [0, 5, 20]


def test_a_name_cannot_end_the_script(tmp_path):
    source = named(3)
    hostile = ImageArray(source.images(), names=["</script><script>x", '"&\u2028', "$head"])
    neighbors = np.array([[1], [2], [0]])
    found = Retrieval(hostile, hostile, np.arange(3), neighbors, np.full((3, 1), 0.5))
    found.save_html(tmp_path / "found.html", "<i>$head")
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 1
    assert "<h1>&lt;i&gt;$head</h1>" in page
    assert set(page_data(tmp_path / "found.html")["names"]) == {
        "</script><script>x", '"&\ufffd', "$head"
    }  # fmt: skip
