"""Pictures and pages of neighbors."""

import os

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from problems import LABELS, NEITHER, SHOWN, on_a_circle, page_data, shown

from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.data.names import printable
from instdisc_core.evaluation import draw_neighbors, plot_tsne, retrieve


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_picture_shows_each_query_with_its_neighbors(tmp_path, figures, labels):
    shown(labels).plot(tmp_path / "found.png", "title")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
    (figure,) = figures
    assert figure.get_suptitle() == "title"
    axes = np.reshape(figure.axes, (3, 3))
    for row, (query, found, colors) in zip(axes, SHOWN, strict=True):
        for axis, i, color in zip(row, [query, *found], ["#000000", *colors], strict=True):
            assert axis.images[0].get_array()[0, 0, 0] == i
            caption = f"<{i}>.jpg" + ("" if axis is row[0] else f"\n{0.9 - 0.1 * i:.2f}")
            assert axis.get_xlabel() == caption
            color = NEITHER if labels is None and axis is not row[0] else color
            assert {to_hex(s.get_edgecolor()) for s in axis.spines.values()} == {color.lower()}


def test_without_captions_there_are_only_images():
    figure = Figure()
    draw_neighbors(figure, shown(LABELS).tiles(), captions=False)
    assert len(figure.axes) == 9
    assert {axis.get_xlabel() for axis in figure.axes} == {""}


def test_a_long_name_loses_its_beginning(tmp_path, figures):
    names = [22 * "a", "b" + 22 * "a"]
    source = ImageArray(np.zeros((2, 4, 4, 3), "uint8"), names=names)
    retrieve(on_a_circle(2), source, on_a_circle(2), source, k=1).plot(tmp_path / "found.png")
    labels = [axis.get_xlabel().split("\n")[0] for axis in figures[0].axes]
    assert labels == [22 * "a", "..." + 19 * "a", "..." + 19 * "a", 22 * "a"]


@pytest.fixture
def oddly_named(tmp_path):
    """A folder of three classes, whose names and whose files' names are not UTF-8 or hold ``$``."""
    for i, folder in enumerate([b"caf\xe9", b"$x_{1$", b"_hidden"]):
        parent = os.path.join(os.fsencode(tmp_path / "photos"), folder)
        try:
            os.makedirs(parent)
        except OSError:
            pytest.skip("this file system takes no names that are not UTF-8")
        for j, name in enumerate([b"caf\xe9.png", b"$x_{1$.png"]):
            image = np.full((8, 8, 3), 60 * i + 20 * j, "uint8")
            Image.fromarray(image).save(os.path.join(parent, name).decode(errors="surrogateescape"))
    return ImageFolder(tmp_path / "photos", 8)


def test_names_of_any_bytes_are_shown_on_pages_and_pictures(oddly_named, tmp_path, figures):
    rows, title = on_a_circle(6), "caf\udce9 & $x_{1$"
    found = retrieve(rows, oddly_named, rows, oddly_named, k=2)
    found.save_html(tmp_path / "found.html", title)
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert page.count("<h1>caf\ufffd &amp; $x_{1$</h1>") == 1
    shown = page_data(tmp_path / "found.html")["names"]
    assert sorted(shown) == sorted(map(printable, oddly_named.names))
    assert {"caf\udce9/caf\udce9.png", "$x_{1$/caf\udce9.png"} <= set(oddly_named.names)

    found.plot(tmp_path / "found.png", title)
    texts = [text.get_text() for text in figures.pop().findobj(Text)]
    expected = {"caf\ufffd & $x_{1$", "caf\ufffd/caf\ufffd.png", "$x_{1$/$x_{1$.png"}
    assert expected <= {text.split("\n")[0] for text in texts}

    plot_tsne(rows, oddly_named, tmp_path / "tsne.png", title=title)
    texts = [text.get_text() for text in figures.pop().findobj(Text)]
    assert {"caf\ufffd & $x_{1$", "caf\ufffd", "$x_{1$", "_hidden"} <= set(texts)
