"""Whether images are told from their mirror images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.recipes.handedness import odd_features, told_from_mirror

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


@given(st.integers(0, 2**32 - 1), st.integers(0, 1), st.integers(0, 1))
def test_the_features_change_their_sign_with_the_image(seed, gray, wide):
    shape = 3, 32, 32 * (1 + wide), 1 if gray else 3
    images = np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")
    rows = odd_features(images)
    np.testing.assert_allclose(odd_features(images[:, :, ::-1]), -rows, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.sqrt(2), atol=0.02)


def test_letters_are_told_from_their_mirror_images_and_a_mixture_of_both_is_not():
    assert told_from_mirror(letters(300)) > 0.9
    for seed in range(3):
        assert 0.35 < told_from_mirror(half_mirrored(letters(300), seed)) < 0.65


def test_images_without_a_side_are_not_told():
    noise = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3)).astype("uint8")
    assert 0.35 < told_from_mirror(noise) < 0.65
    symmetric = np.concatenate([noise[:, :, :16], noise[:, :, 15::-1]], axis=2)
    assert 0.35 < told_from_mirror(symmetric) < 0.65
    assert told_from_mirror(np.zeros((9, 32, 32, 3), "uint8")) == 0.5


def test_photos_of_one_scene_do_not_tell_about_each_other():
    """Each scene is there eight times, once in a row, and once scattered, which would be told."""
    scenes = half_mirrored(letters(40))
    rng = np.random.default_rng(0)
    bursts = np.clip(np.repeat(scenes, 8, axis=0) + rng.integers(0, 9, (320, 32, 32, 3)), 0, 255)
    assert told_from_mirror(bursts) < 0.75
    assert told_from_mirror(bursts[rng.permutation(320)]) > 0.9
