"""Changed copies of images."""

import numpy as np
import pytest

from instdisc_core.evaluation import alterations
from instdisc_core.evaluation.alterations import resized

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), "uint8")
ALL = ("turned", "shrunk", "relit", "covered", "compressed")


@pytest.mark.parametrize("name", [*ALL, "altered", "warped"])
def test_a_copy_is_changed_drawn_by_its_seed_and_of_the_same_shape(name):
    alteration, before = getattr(alterations, name), IMAGE.copy()
    copies = [alteration(IMAGE, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(IMAGE, before)
    np.testing.assert_array_equal(copies[0], copies[1])
    for copy in copies:
        assert (copy.shape, copy.dtype) == (IMAGE.shape, np.uint8)
        assert np.mean(copy != IMAGE) > 0.05
    assert name == "shrunk" or not np.array_equal(copies[0], copies[2])
    assert alteration(IMAGE[:1, :1], np.random.default_rng(0)).shape == (1, 1, 3)


def test_every_alteration_is_drawn(monkeypatch):
    drawn = []
    for name in ALL:
        monkeypatch.setattr(alterations, name, lambda image, rng, name=name: drawn.append(name))
    rng = np.random.default_rng(0)
    for _ in range(40):
        alterations.altered(IMAGE, rng)
    assert set(drawn) == set(ALL)


def test_an_image_is_turned_around_its_center():
    """The center stays, and a bar across it leans to either side."""
    image = np.zeros((41, 41, 3), "uint8")
    image[20, :] = 255
    for seed in range(3):
        turned = alterations.turned(image, np.random.default_rng(seed))
        assert turned[20, 20, 0] > 100
        heights = turned[..., 0].argmax(axis=0)
        lean = np.degrees(np.arctan2(int(heights[35]) - int(heights[5]), 30))
        assert 4 < abs(lean) < 13


def test_a_patch_covers_a_tenth_of_the_image():
    plain = np.full((20, 30, 3), 77, "uint8")
    covered = alterations.covered(plain, np.random.default_rng(0))
    assert np.any(covered != plain, axis=2).sum() == 6 * 9


def test_darker_or_brighter_is_of_the_same_order():
    levels = np.arange(256, dtype="uint8").reshape(1, 256, 1).repeat(3, axis=2)
    relit = [alterations.relit(levels, np.random.default_rng(s))[0, :, 0] for s in range(6)]
    assert all(np.all(np.diff(r.astype(int)) >= 0) and (r[0], r[-1]) == (0, 255) for r in relit)
    assert {bool(r[128] > 128) for r in relit} == {True, False}


def test_a_warp_maps_the_image_around_its_center(monkeypatch):
    """Of the middle of a large white square there is as much as the drawn matrix leaves."""
    image = np.zeros((60, 60, 3), "uint8")
    image[20:40, 20:40] = 255
    for seed in range(5):
        drawn = np.random.default_rng(seed)
        matrix = np.eye(2) + drawn.uniform(-0.25, 0.25, (2, 2))
        warped = alterations.warped(image, np.random.default_rng(seed)) / 255
        assert warped.sum() / 3 == pytest.approx(400 / np.linalg.det(matrix), rel=0.05)
        shift = drawn.uniform(-0.15, 0.15, 2) * 60
        y, x = (np.arange(60) @ warped[..., 0].sum(axis=1 - axis) for axis in (0, 1))
        found = np.array([x, y]) / warped[..., 0].sum()
        np.testing.assert_allclose(matrix @ (found - 29.5) + shift, [0, 0], atol=0.3)


def test_resized_is_of_height_and_width():
    assert resized(IMAGE, (5, 9)).shape == (5, 9, 3)
