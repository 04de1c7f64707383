"""Pictures by t-SNE."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from problems import named
from sklearn.manifold import TSNE

from instdisc_core.data import ImageArray
from instdisc_core.evaluation import plot_tsne

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
    assert 10 < len(axis.images) <= 20, "where two would overlap the first is drawn"
    left, right = axis.get_xlim()
    for image in axis.images:
        i = int(image.get_array()[0, 0, 0])
        x, y = places[chosen.tolist().index(i)]
        west, east, south, north = image.get_extent()
        assert west <= x <= east
        assert south <= y <= north
        assert (east - west) * 33 > right - left > (east - west) * 20


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
