"""Changed copies of images that have to find these."""

import numpy as np
import pytest
from problems import colors

from instdisc_core.data import ImageArray
from instdisc_core.evaluation import Matching, matching
from instdisc_core.evaluation.matching import share_found


def test_a_query_has_found_its_row_if_no_other_is_as_similar():
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]])
    assert share_found(rows, rows) == 1
    assert share_found(rows[[0, 2, 1]], rows) == pytest.approx(1 / 3)
    assert share_found(np.ones((3, 2)), np.ones((3, 2))) == 0, "all alike: nothing is found"
    assert share_found(np.full((3, 2), np.nan), rows) == 0


def mean_color(source):
    rows = source.images().mean(axis=(1, 2)) - 127
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_features_that_see_what_stays_find_the_image():
    """Images of one color each keep it when they are warped; features of noise find nothing."""
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 256, (30, 1, 1, 3), "uint8") * np.ones((1, 12, 12, 1), "uint8")
    tasks = Matching(ImageArray(plain))
    assert tasks.scores(mean_color)["warped copy"] == 1
    noise = tasks.scores(lambda source: rng.standard_normal((len(source), 50)))
    assert max(noise.values()) < 0.3
    assert tasks.of_pixels()["warped copy"] == 1


def test_tasks_are_drawn_by_seed_from_images_spread_over_the_source(monkeypatch):
    source = colors(24)
    tasks, again, other = (Matching(source, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(tasks.images, source.images([0, 5, 11, 17, 23]))
    copies, equal, different = (one.copies["altered copy"] for one in (tasks, again, other))
    np.testing.assert_array_equal(copies, equal)
    assert not np.array_equal(copies, different)
    assert len(Matching(source).images) == 24
    monkeypatch.setattr(matching, "VALUES", 3 * 16 * 16 * 7)
    assert len(Matching(source).images) == 7, "fewer where the pixels would fill the memory"
    with pytest.raises(ValueError, match="images=0"):
        Matching(source, 0)
