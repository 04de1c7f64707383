"""Whether images are told from their mirror images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.recipes import told_from_mirror
from instdisc_core.recipes.handedness import HANDED, different, odd_features

pytestmark = pytest.mark.on_one_backend


def letters(n, seed=0, side=32):
    """The letter L in many places, brightnesses and sizes, on noise; no mirror image among them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, side, side, 3))
    for image in images:
        height = rng.integers(10, 20)
        top, left = rng.integers(0, side - height, 2)
        brightness = rng.integers(120, 195)
        image[top : top + height, left : left + 3] += brightness
        image[top + height - 3 : top + height, left : left + height] += brightness
    return images.astype("uint8")


def half_mirrored(images, seed=1):
    mirrored = np.random.default_rng(seed).random(len(images)) < 0.5
    return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


@given(st.integers(0, 2**32 - 1), st.sampled_from([32, 64]))
def test_the_features_change_their_sign_with_the_image(seed, width):
    """Of one channel, whose sums are exact in any order."""
    images = np.random.default_rng(seed).integers(0, 256, (3, 32, width, 1)).astype("uint8")
    rows = odd_features(images)
    np.testing.assert_allclose(odd_features(images[:, :, ::-1]), -rows, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.sqrt(2), atol=0.05)


def test_letters_are_told_from_their_mirror_images_and_a_mixture_of_both_is_not():
    assert told_from_mirror(letters(300)) > 0.85
    for seed in range(3):
        assert 0.35 < told_from_mirror(half_mirrored(letters(300), seed)) < 0.65


def test_slants_alone_are_told():
    """Lines that all rise to the right; their brightness has no side."""
    rng = np.random.default_rng(0)
    steepness, period, phase = rng.uniform((0.6, 8, 0), (1.6, 16, 16), (300, 3)).T[..., None, None]
    y, x = np.mgrid[:32, :32]
    lines = ((x + steepness * y + phase) % period < 4)[..., None]
    assert told_from_mirror(200 * lines + rng.integers(0, 50, (300, 32, 32, 1))) > 0.9


def test_images_without_a_side_are_not_told():
    noise = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 1)).astype("uint8")
    assert 0.35 < told_from_mirror(noise) < 0.65
    symmetric = np.concatenate([noise[:, :, :16], noise[:, :, 15::-1]], axis=2)
    np.testing.assert_array_equal(odd_features(symmetric), 0)
    assert told_from_mirror(np.zeros((150, 32, 32, 3), "uint8")) == 0.5


def test_a_mark_in_a_corner_does_not_tell():
    images = half_mirrored(letters(300))
    images[:, -3:, -6:] = 255
    images[:, :3, :5] = 0
    assert told_from_mirror(images) < 0.65


@pytest.mark.parametrize("count", [120, 300])
def test_photos_of_one_scene_do_not_tell_about_each_other(count):
    scenes = half_mirrored(letters(count))
    rng = np.random.default_rng(0)
    bursts = np.repeat(scenes, 4, axis=0)
    bursts = np.clip(bursts + rng.integers(-6, 7, bursts.shape), 0, 255)
    bursts = rng.permutation(bursts)
    assert told_from_mirror(bursts) < HANDED
    assert count / 2 < len(different(bursts)) <= 1.1 * count


def test_pictures_of_one_place_are_different():
    """Such as X-rays of chests: all have the heart at one side, and differ by little."""
    rng = np.random.default_rng(0)
    place = np.zeros((200, 32, 32, 1)) + 60
    place[:, 8:20, 16:24] = 180
    pictures = place + rng.normal(0, 12, (200, 16, 16, 1)).repeat(2, axis=1).repeat(2, axis=2)
    assert told_from_mirror(pictures) == 1


def test_few_images_do_not_say():
    assert np.isnan(told_from_mirror(letters(99)[:0]))
    assert np.isnan(told_from_mirror(letters(99)))
    assert np.isnan(told_from_mirror(np.repeat(letters(50), 4, axis=0)))


@pytest.mark.parametrize("shape", [(200, 32, 32), (200, 32, 40, 3), (200, 24, 32, 3), (0,)])
def test_images_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        told_from_mirror(np.zeros(shape))
