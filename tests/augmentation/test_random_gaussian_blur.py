"""The blur: its kernel, its borders, and that each image gets its own width."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from pixels import assert_same_distribution, noise

from instdisc_core.augmentation import RandomGaussianBlur


def blurred(image, sigma, kernel_size):
    """One image, by a sum over the window of each pixel of the reflected image."""
    radius = kernel_size // 2
    line = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, axis=(0, 1))
    return np.einsum("ijcab,ab->ijc", windows, kernel)


@pytest.mark.parametrize(("rows", "columns", "kernel_size"), [(9, 7, 5), (4, 12, 7), (5, 5, 1)])
def test_a_blur_is_that_of_the_reflected_image(rows, columns, kernel_size):
    images = noise(30, rows, columns, 2)
    sigmas = numpy(RandomGaussianBlur(kernel_size, seed=2).draw(30))
    out = numpy(RandomGaussianBlur(kernel_size, seed=2)(images, training=True))
    for image, sigma, result in zip(images, sigmas, out, strict=True):
        np.testing.assert_allclose(result, blurred(image, sigma, kernel_size), atol=1e-5)
    assert len(np.unique(sigmas)) == 30


def test_a_constant_image_stays_constant_to_the_corner():
    images = np.full((20, 12, 9, 3), 0.5, "float32")
    out = numpy(RandomGaussianBlur(11, (0.5, 5.0), seed=0)(images, training=True))
    np.testing.assert_allclose(out, 0.5, atol=1e-5)


def test_sigmas_are_uniform():
    sigmas = numpy(RandomGaussianBlur(3, (0.5, 1.5), seed=0).draw(4000))
    expected = np.random.default_rng(1).uniform(0.5, 1.5, 4000)
    assert_same_distribution(sigmas, expected, false_alarms=1e-6)


def test_out_of_training_nothing_is_blurred():
    images = noise(2, 5, 5, 3)
    np.testing.assert_array_equal(numpy(RandomGaussianBlur(3)(images)), images)


def test_integer_pixels_are_blurred():
    images = (255 * noise(30, 9, 7, 2)).astype("uint8")
    for training in (True, False):
        outputs = [
            RandomGaussianBlur(5, seed=2)(pixels, training=training)
            for pixels in (images, images.astype("float32"))
        ]
        assert [keras.backend.standardize_dtype(out.dtype) for out in outputs] == ["float32"] * 2
        np.testing.assert_array_equal(*map(numpy, outputs))
