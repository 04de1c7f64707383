"""Pictures by t-SNE."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from problems import named
from sklearn.manifold import TSNE

from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.evaluation import TSNEPositions, layout, plot_tsne, tsne

pytestmark = pytest.mark.framework_independent


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


def test_each_image_is_a_point_in_the_color_of_its_class(tmp_path, figures, flat):
    rows, images = scattered()
    labels = np.arange(30) % 3
    source = ImageArray(images, labels, class_names=["ant", "bee", "cat"])
    places, chosen = plot_tsne(rows, source, tmp_path / "tsne.png", num_images=20, title="t")
    assert (tmp_path / "tsne.png").read_bytes()[:4] == b"\x89PNG"
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
def test_with_many_classes_or_none_thumbnails_are_drawn(tmp_path, figures, flat, labels):
    rows, images = scattered()
    places, chosen = plot_tsne(rows, ImageArray(images, labels), tmp_path / "tsne.png", 20)
    (axis,) = figures[0].axes
    assert not axis.collections
    low, high = places.min(axis=0), places.max(axis=0)
    cells = axis.get_xlim()[1]
    corners = []
    for image in axis.images:
        i = int(image.get_array()[0, 0, 0])
        place = (places[chosen.tolist().index(i)] - low) / (high - low) * cells
        west, east, south, north = image.get_extent()
        corners.append((west, south))
        assert (east - west, north - south) == (1, 1)
        assert np.all(np.abs(place - (west + 0.5, south + 0.5)) <= 1.5), "next to its own cell"
    assert len(set(corners)) == len(corners) > 15
    assert axis.get_xlabel() == f"{len(corners)} of 30 images; {30 - len(corners)} are left out"
    assert {0, cells - 1} <= {corner[0] for corner in corners}, "from the left to the right"


def test_thumbnails_are_whole_originals_and_positions_may_be_given(tmp_path, figures, flat):
    Image.fromarray(np.zeros((40, 80, 3), "uint8")).save(tmp_path / "wide.png")
    for i in range(3):
        Image.fromarray(np.zeros((50, 50, 3), "uint8")).save(tmp_path / f"{i}.png")
    source = ImageFolder(tmp_path, 8, duplicates="keep", verbose=False)
    given = TSNEPositions(np.float32([[0, 0], [1, 0], [0, 1], [1, 1]]), np.arange(4))
    found = plot_tsne(np.eye(4), source, tmp_path / "tsne.jpg", found=given)
    assert found is given
    assert not flat
    (axis,) = figures[0].axes
    assert axis.get_xlabel() == ""
    assert {image.get_array().shape[:2] for image in axis.images} == {(50, 50), (32, 64)}
    assert sorted(image.get_extent()[3] for image in axis.images) == [1, 1, 5.75, 6]


def test_positions_are_those_of_t_sne_and_finite(tmp_path):
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


def test_a_layout_puts_the_others_next_to_those_most_like_them(flat):
    rng = np.random.default_rng(0)
    angles = np.concatenate([0.02 * rng.random(20), 2 + 0.02 * rng.random(20)])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    positions = layout(rows, num_images=12)
    assert positions.shape == (40, 2)
    assert len(flat) == 1
    np.testing.assert_allclose(positions, rows, atol=0.05)
    assert len(np.unique(positions, axis=0)) == 40
    np.testing.assert_array_equal(layout(rows, num_images=12), positions)
    np.testing.assert_array_equal(layout(rows), rows)


@pytest.mark.parametrize("shape", [(9, 8), (9, 128), (9, 1)])
def test_equal_embeddings_have_positions_too(shape):
    """Of a collapsed encoder, say. scikit-learn ends the process where it starts from NaN."""
    assert np.all(np.isfinite(tsne(np.ones(shape, "float32")).positions))
