"""Color jitter, against the formulas that torchvision documents."""

import colorsys
import itertools

import numpy as np
import pytest
from differentiation import numpy
from pixels import GRAY, assert_same_distribution, colorful

from instdisc_core.augmentation import ColorJitter

PAPER, SIMCLR = (0.4, 0.4, 0.4, 0.4), (0.8, 0.8, 0.8, 0.2)
N, SIZE = 1500, 4  # one shape of images for all tests, since JAX compiles for each
to_hsv, to_rgb = np.vectorize(colorsys.rgb_to_hsv), np.vectorize(colorsys.hsv_to_rgb)


def turned(image, turn):
    hue, saturation, value = to_hsv(*np.moveaxis(image, -1, 0))
    return np.stack(to_rgb((hue + turn) % 1, saturation, value), axis=-1)


CHANGES = (
    lambda image, factor: np.clip(factor * image, 0, 1),
    lambda image, factor: np.clip(factor * image + (1 - factor) * np.mean(image @ GRAY), 0, 1),
    lambda image, factor: np.clip(factor * image + (1 - factor) * (image @ GRAY)[..., None], 0, 1),
    turned,
)


def jittered(rng, image, amounts):
    """One image, by the four changes in a random order."""
    for change in rng.permutation(4):
        low, high = max(0, 1 - amounts[change]), 1 + amounts[change]
        if change == 3:
            low, high = -amounts[change], amounts[change]
        image = CHANGES[change](image, rng.uniform(low, high))
    return image


@pytest.mark.parametrize("amounts", [PAPER, SIMCLR, (3, 3, 3, 0.5)])
def test_given_its_draw_a_jittered_image_is_that_of_the_formulas(amounts):
    images = colorful(N, SIZE)
    changes = ColorJitter(*amounts, seed=5).draw(N)
    factors, turns = numpy(changes.factors), numpy(changes.turn)
    orders = np.argsort(numpy(changes.places), axis=1)[:300]
    expected = images[:300].astype("float64")
    for i, order in enumerate(orders):
        for change in order:
            value = turns[i] if change == 3 else factors[i, change]
            expected[i] = CHANGES[change](expected[i], value)
    out = numpy(ColorJitter(*amounts, seed=5)(images, training=True))[:300]
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert len(np.unique(orders, axis=0)) == 24


def test_each_order_is_as_likely_as_the_others():
    places = numpy(ColorJitter(*PAPER, seed=0).draw(4800).places)
    orders, counts = np.unique(places, axis=0, return_counts=True)
    assert {tuple(order) for order in orders} == set(itertools.permutations(range(4)))
    assert np.max(np.abs(counts - 200)) < 6 * np.sqrt(200)


def test_the_amounts_and_the_order_of_the_changes_are_independent():
    changes = ColorJitter(*PAPER, seed=0).draw(4800)
    drawn = (changes.factors, changes.turn[:, None], changes.places)
    correlations = np.corrcoef(np.concatenate([numpy(part) for part in drawn], axis=1).T)
    correlations[4:, 4:] += 1 / 3  # of two places: no two changes have the same
    assert np.max(np.abs(correlations[~np.eye(8, dtype=bool)])) < 6 / np.sqrt(4800)


@pytest.mark.parametrize(
    "amounts",
    [
        (0.4, 0, 0, 0),
        (0, 0.4, 0, 0),
        (0, 0, 0.4, 0),
        (0, 0, 0, 0.4),
        (1.5, 0, 0, 0),
        PAPER,
        SIMCLR,
    ],
)
def test_colors_are_distributed_as_torchvision_s(amounts):
    rng = np.random.default_rng(1)
    image = rng.random((SIZE, SIZE, 3)) * [0.9, 0.5, 0.7]
    images = np.tile(image.astype("float32"), (N, 1, 1, 1))
    ours = numpy(ColorJitter(*amounts, seed=0)(images, training=True))
    theirs = np.stack([jittered(rng, image, amounts) for _ in range(N)])
    for channel in range(3):
        one, other = (out[..., channel] - image[..., channel] for out in (ours, theirs))
        for statistic in (lambda x: np.mean(np.abs(x), axis=(1, 2)), lambda x: x.mean(axis=(1, 2))):
            assert_same_distribution(statistic(one), statistic(other), false_alarms=1e-6)


def channels(images):
    """Hue as a share of the circle, chroma and value, of the first pixel of each image."""
    pixels = numpy(images)[:, 0, 0]
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels]
    return np.array([hues, pixels.max(axis=1) - pixels.min(axis=1), pixels.max(axis=1)])


@pytest.mark.parametrize(
    ("amounts", "channel", "low", "high"),
    [
        ((0, 0, 0.4, 0), 1, 0.6 * 0.3, 1.4 * 0.3),
        ((0, 0, 0, 0.1), 0, 0.5 - 0.1, 0.5 + 0.1),
        ((0.2, 0, 0, 0), 2, 0.8 * 0.6, 1.2 * 0.6),
    ],
)
def test_colors_change_by_the_amounts_that_were_asked_for(amounts, channel, low, high):
    color = np.array(colorsys.hsv_to_rgb(0.5, 0.5, 0.6), "float32")
    images = np.tile(color, (N, SIZE, SIZE, 1))
    out = channels(ColorJitter(*amounts, seed=0)(images, training=True))
    assert low - 1e-3 < out[channel].min() < low + 0.02 * (high - low) + 1e-3
    assert high - 0.02 * (high - low) - 1e-3 < out[channel].max() < high + 1e-3
    assert abs(out[channel].mean() - (low + high) / 2) < 0.1 * (high - low)


def test_contrast_is_about_the_mean():
    images = np.zeros((N, SIZE, SIZE, 3), "float32") + 0.5
    images[:, :2] += 0.1
    images[:, 2:] -= 0.1
    out = numpy(ColorJitter(contrast=0.5, seed=0)(images, training=True))
    factors = (out[:, 0, 0, 0] - out[:, 2, 0, 0]) / 0.2
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), 0.5, atol=1e-4)
    assert 0.5 - 1e-3 < factors.min() < 0.53
    assert 1.47 < factors.max() < 1.5 + 1e-3


def test_no_amount_and_no_training_change_nothing():
    images = colorful(N, SIZE)
    np.testing.assert_allclose(numpy(ColorJitter(seed=0)(images, training=True)), images, atol=1e-5)
    np.testing.assert_array_equal(numpy(ColorJitter(*PAPER)(images)), images)


@pytest.mark.parametrize("training", [True, False])
def test_integer_pixels_are_not_taken_for_the_unit_interval(training):
    with pytest.raises(ValueError, match=r"images of dtype uint8\. Expected floating-point"):
        ColorJitter(0.4)(np.zeros((2, 8, 8, 3), "uint8"), training=training)
