"""Retrieval: who is found and who is not, and the pictures and pages that show it; maps."""

import base64
import io
import os
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from sklearn.manifold import TSNE

from instdisc_core import MemoryBank
from instdisc_core.data import ImageArray, ImageDataset, ImageFolder
from instdisc_core.data.manifest import printable
from instdisc_core.evaluation import Retrieval, plot_tsne, retrieve
from instdisc_core.evaluation.positions import positions_in

PNG = b"\x89PNG"


def on_a_circle(n):
    angles = np.linspace(0, np.pi, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def named(n, labels=None):
    images = np.zeros((n, 4, 4, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(n)
    return ImageArray(images, labels, names=[f"<{i}>.jpg" for i in range(n)])


def test_neighbors_are_the_nearest_and_never_the_query_itself():
    source = named(9)
    found = retrieve(on_a_circle(9), source, on_a_circle(9), source, k=2, indices=[4, 0])
    assert [set(row) for row in found.neighbors.tolist()] == [{3, 5}, {1, 2}]
    assert found.names()[1] == ("<0>.jpg", ["<1>.jpg", "<2>.jpg"])
    np.testing.assert_allclose(found.similarities[0], np.cos(np.pi / 8), rtol=1e-5)


def test_an_image_is_itself_by_its_data():
    """It is found neither in a second object of the same data nor from a part of it."""
    gallery, rows = named(9), on_a_circle(9)
    unread = ImageDataset(list(gallery.images()), 4, cache=False)
    later = ImageArray(gallery.images(range(4, 9)), names=["x", *gallery.names[5:]])
    for queries, own in (
        (gallery, range(9)),
        (named(9), range(9)),
        (named(9).subset([7, 2, 5]), [7, 2, 5]),
        (ImageArray(255 - gallery.images(), names=gallery.names), [-1] * 9),
        (ImageArray(gallery.images()), [-1] * 9),  # other names
        (unread, [-1] * 9),  # no digests
        (later, [-1, 5, 6, 7, 8]),
    ):
        assert positions_in(gallery, queries).tolist() == list(own)
        angles = [i if i >= 0 else 3 for i in own]
        found = retrieve(rows[angles], queries, rows, gallery, k=1).neighbors[:, 0]
        for i, j in zip(own, found, strict=True):
            assert j == 3 if i < 0 else abs(i - j) == 1
    assert positions_in(unread, unread).tolist() == list(range(9))
    other = ImageDataset(list(255 - gallery.images()), 4, cache=False)
    assert positions_in(unread, other).tolist() == [-1] * 9, "equal names are not equal images"
    some = retrieve(rows[[7, 2, 5]], gallery.subset([7, 2, 5]), rows, gallery, 1, indices=[2, 0])
    assert some.names()[0][0] == "<5>.jpg"
    assert np.abs(some.neighbors[:, 0] - [5, 7]).tolist() == [1, 1]


def test_all_of_the_gallery_but_the_query_itself_can_be_found():
    gallery, rows = named(5), on_a_circle(5)
    assert retrieve(rows, gallery, rows, gallery, k=4).neighbors.shape == (5, 4)
    other = ImageArray(255 - gallery.images())
    assert retrieve(rows, other, rows, gallery, k=5).neighbors.shape == (5, 5)
    mixed = ImageArray(np.stack([gallery.image(0), other.image(1)]), names=["<0>.jpg", "new"])
    assert retrieve(rows[:2], mixed, rows, gallery, k=5, indices=[1]).neighbors.shape == (1, 5)
    for queries, most in ((gallery, 4), (named(5), 4), (other, 5), (mixed, 4)):
        with pytest.raises(ValueError, match=rf"k={most + 1}\. Expected at most {most}"):
            retrieve(rows[: len(queries)], queries, rows, gallery, k=most + 1)


def test_where_the_query_s_own_row_is_far_off_the_last_one_is_left_out():
    """A bank's row can lag so far behind that the image itself is not among the nearest."""
    source, rows = named(5), on_a_circle(5)
    found = retrieve(-rows[[0]], source.subset([0]), rows, source, k=2)
    assert found.neighbors.tolist() == [[4, 3]]
    np.testing.assert_allclose(found.similarities, [[1, np.cos(np.pi / 4)]], atol=1e-6)


def test_of_many_equal_images_none_is_its_own_neighbor():
    source, same = named(5), np.tile(np.float32([[1, 0]]), (5, 1))
    found = retrieve(same, source, same, source, k=2)
    assert found.neighbors.shape == (5, 2)
    assert not np.any(found.neighbors == np.arange(5)[:, None])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_gallery_is_checked_against_the_bank_s_manifest(dtype):
    source, rows = named(5), on_a_circle(5)
    bank = MemoryBank(5, 2, dtype=dtype)
    bank.rows.assign(rows)
    other = ImageArray(255 - source.images(), names=source.names)
    for gallery in (source, other):
        found = retrieve(rows, source, bank, gallery, k=1)  # it does not know whose rows it has
        assert found.neighbors[0].tolist() == [1 if gallery is source else 0]
    bank.manifest = named(5).manifest
    np.testing.assert_array_equal(
        retrieve(rows, source, bank, source, k=4).neighbors,
        retrieve(rows, source, bank.rows, source, k=4).neighbors,
    )
    with pytest.raises(ValueError, match=r"a gallery with 5 images .* 5 changed: <0>\.jpg, <1>"):
        retrieve(rows, source, bank, other, k=1)
    with pytest.raises(ValueError, match=r"a gallery with 4 images .* 1 missing: <4>\.jpg"):
        retrieve(rows, source, bank, source.subset(range(4)), k=1)


def test_queries_and_galleries_that_are_not_finite_are_named():
    source, rows = named(9), np.eye(9, dtype="float32")
    wrong = rows.copy()
    wrong[[2, 4], 0] = np.nan, np.inf
    expected = r"features in which 2 of {} rows are not finite: {}\."
    with pytest.raises(ValueError, match=expected.format(9, "2, 4")):
        retrieve(wrong, source, rows, source, k=1)
    with pytest.raises(ValueError, match=expected.format(3, "4, 2")):
        retrieve(wrong, source, rows, source, k=1, indices=[4, 1, 2])
    assert retrieve(wrong, source, rows, source, k=1, indices=[1, 3]).neighbors.shape == (2, 1)
    with pytest.raises(ValueError, match="gallery_" + expected.format(9, "2, 4")):
        retrieve(rows, source, wrong, source, k=1)


def test_best_and_worst_are_by_agreement():
    source = named(6, labels=[0, 0, 0, 1, 0, 1])
    found = retrieve(on_a_circle(6), source, on_a_circle(6), source, k=1)
    assert found.agreement[5] == 0
    assert found.agreement[0] == 1
    assert found.worst(1).agreement[0] == 0
    assert found.best(2).agreement.tolist() == [1, 1]
    assert len(found.best(100).indices) == 6


def test_agreement_counts_first_and_similarity_after_it():
    source = named(4, labels=[0, 0, 1, 1])
    found = Retrieval(
        source,
        source,
        indices=np.array([0, 1, 2, 3]),
        neighbors=np.array([[1, 2], [0, 0], [3, 3], [0, 1]]),
        similarities=np.array([[0.9, 0.8], [0.2, 0.1], [0.4, 0.3], [0.7, 0.6]]),
    )
    assert found.agreement.tolist() == [0.5, 1, 1, 0]
    assert found.best(4).indices.tolist() == [2, 1, 0, 3]
    worst = found.worst(3)
    assert worst.indices.tolist() == [3, 0, 1]
    assert worst.neighbors.tolist() == [[0, 1], [1, 2], [0, 0]]
    assert worst.similarities.tolist() == [[0.7, 0.6], [0.9, 0.8], [0.2, 0.1]]
    bare = Retrieval(named(4), named(4), found.indices, found.neighbors, found.similarities)
    assert bare.agreement is None
    assert bare.best(2).indices.tolist() == [0, 3]


# -- pictures and pages


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, as they are then."""
    saved, save = [], Figure.savefig

    def watched(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", watched)
    return saved


SAME, OTHER, NEITHER = "#029E73", "#D55E00", "#888888"
# Queries 0, 3 and 5 of six images, with the neighbors of each, and whether they are of its class.
LABELS = [0, 0, 0, 1, 0, 1]
SHOWN = [(0, [1, 2], [SAME, SAME]), (3, [5, 1], [SAME, OTHER]), (5, [4, 0], [OTHER, OTHER])]


def shown(labels):
    source = named(6, labels)
    indices, neighbors = np.array([0, 3, 5]), np.array([found for _, found, _ in SHOWN])
    return Retrieval(source, source, indices, neighbors, 0.9 - 0.1 * neighbors)


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_picture_shows_each_query_with_its_neighbors(tmp_path, figures, labels):
    shown(labels).plot(tmp_path / "found.png", "title")
    assert (tmp_path / "found.png").read_bytes()[:4] == PNG
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


@pytest.mark.parametrize("labels", [None, LABELS])
def test_a_page_shows_each_query_with_its_neighbors(tmp_path, labels):
    shown(labels).save_html(tmp_path / "found.html", "A & B")
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in page
    assert ("the class of the query" in page) == (labels is not None)
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
    assert page.count('alt="$x_{1$/$x_{1$.png"') == found.indices.tolist().count(0) + sum(
        names.count("$x_{1$/$x_{1$.png") for _, names in found.names()
    )
    for i in range(6):
        assert printable(oddly_named.names[i]) in page
    assert {"caf\udce9/caf\udce9.png", "$x_{1$/caf\udce9.png"} <= set(oddly_named.names)

    found.plot(tmp_path / "found.png", title)
    texts = [text.get_text() for text in figures.pop().findobj(Text)]
    expected = {"caf\ufffd & $x_{1$", "caf\ufffd/caf\ufffd.png", "$x_{1$/$x_{1$.png"}
    assert expected <= {text.split("\n")[0] for text in texts}

    plot_tsne(rows, oddly_named, tmp_path / "tsne.png", title=title)
    texts = [text.get_text() for text in figures.pop().findobj(Text)]
    assert {"caf\ufffd & $x_{1$", "caf\ufffd", "$x_{1$", "_hidden"} <= set(texts)


def test_lists_are_taken_and_no_query_finds_nothing():
    source, rows = named(9), on_a_circle(9)
    found = retrieve(rows, source, rows, source, k=2, indices=[4, 0])
    same = retrieve(rows.tolist(), source, rows.tolist(), source, k=2, indices=range(4, -1, -4))
    np.testing.assert_array_equal(same.neighbors, found.neighbors)
    none = retrieve(rows, source, rows, source, k=2, indices=[])
    assert none.neighbors.shape == none.similarities.shape == (0, 2)
    assert none.names() == []


def test_what_was_found_can_be_compared_and_hashed():
    source, rows = named(9), on_a_circle(9)
    found, other = (retrieve(rows, source, rows, source, k=2) for _ in range(2))
    assert len({found, other, found}) == 2
    assert found != other


def test_retrieval_is_checked():
    source = named(5)
    with pytest.raises(ValueError, match=r"features of shape \(4, 2\) for 5 images"):
        retrieve(on_a_circle(4), source, on_a_circle(5), source)
    with pytest.raises(ValueError, match=r"k=5. Expected at most 4"):
        retrieve(on_a_circle(5), source, on_a_circle(5), source, k=5)


# -- maps


@pytest.fixture
def flat(monkeypatch):
    """A t-SNE that takes the first two dimensions, so that a place tells its embedding."""
    made = []

    def fit_transform(self, rows):
        made.append(self)
        return np.asarray(rows)[:, :2].astype("float32")

    monkeypatch.setattr(TSNE, "fit_transform", fit_transform)
    return made


def scattered(n=30, seed=0):
    """Rows that all differ, and images of which the first pixel tells the index."""
    rows = np.random.default_rng(seed).standard_normal((n, 5)).astype("float32")
    return rows, named(n).images()


def test_a_map_has_a_point_for_each_image_by_class(tmp_path, figures, flat):
    rows, images = scattered()
    labels = np.arange(30) % 3
    source = ImageArray(images, labels, class_names=["ant", "bee", "cat"])
    places, chosen = plot_tsne(rows, source, tmp_path / "tsne.png", num_images=20, title="t")
    assert (tmp_path / "tsne.png").read_bytes()[:4] == PNG
    assert len(set(chosen)) == 20
    np.testing.assert_array_equal(places, rows[chosen, :2])
    assert (flat[0].random_state, flat[0].perplexity) == (0, pytest.approx(19 / 3))
    (axis,) = figures[0].axes
    assert axis.get_title() == "t"
    colors = []
    for label, points in enumerate(axis.collections):
        members = chosen[labels[chosen] == label]
        np.testing.assert_array_equal(points.get_offsets(), rows[members, :2])
        colors.append(to_hex(points.get_facecolor()[0]))
    assert len(set(colors)) == 3
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["ant", "bee", "cat"]
    for seed, same in ((0, True), (1, False)):
        again = plot_tsne(rows, source, tmp_path / "tsne.png", num_images=20, seed=seed)[1]
        assert np.array_equal(again, chosen) == same
        assert flat[-1].random_state == seed
    everything = plot_tsne(rows, source, tmp_path / "tsne.png")[1]
    assert everything.tolist() == list(range(30))


@pytest.mark.parametrize("labels", [None, np.arange(30) % 11])
def test_without_few_classes_a_map_has_thumbnails(tmp_path, figures, flat, labels):
    rows, images = scattered()
    places, chosen = plot_tsne(rows, ImageArray(images, labels), tmp_path / "tsne.png", 20)
    (axis,) = figures[0].axes
    assert not axis.collections
    assert 10 < len(axis.images) <= 20, "where two would overlap the first is drawn"
    left, right = axis.get_xlim()
    for image in axis.images:
        i = int(image.get_array()[0, 0, 0])
        x, y = places[chosen.tolist().index(i)]
        west, east, south, north = image.get_extent()
        assert west <= x <= east
        assert south <= y <= north
        assert (east - west) * 33 > right - left > (east - west) * 20


def test_a_map_is_drawn_by_t_sne(tmp_path):
    rows, images = scattered()
    places, _ = plot_tsne(rows, ImageArray(images), tmp_path / "tsne.png")
    assert places.shape == (30, 2)
    assert np.all(np.isfinite(places))
    with pytest.raises(ValueError, match=r"3 images\. Expected at least 4"):
        plot_tsne(rows[:3], ImageArray(images[:3]), tmp_path / "tsne.png")
    rows[7] = np.nan
    with pytest.raises(ValueError, match=r"embeddings in which 1 of 30 rows .* finite: 7\."):
        plot_tsne(rows, ImageArray(images), tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
