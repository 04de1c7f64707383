"""Images for the tests of augmentations, and a comparison of what two of them draw."""

import numpy as np

GRAY = np.array([0.299, 0.587, 0.114])  # the shares of red, green and blue


def noise(*shape, seed=0):
    """Random pixels in [0, 1), float32."""
    return np.random.default_rng(seed).random(shape).astype("float32")


def colorful(n, size):
    """Random colors, and among them the ones at which a formula changes its branch."""
    images = np.random.default_rng(0).random((n, size, size, 3))
    images[:, 0, 0], images[:, 0, 1] = 0, 1
    images[:, 0, 2], images[:, 0, 3] = [1, 0, 0], [0.5, 0.5, 0.2]
    images[0], images[1] = images[0, ..., :1], 0.25
    return images.astype("float32")


def assert_same_distribution(one, other, false_alarms):
    """Two samples of one distribution: Kolmogorov and Smirnov's distance at this level."""
    values = np.union1d(one, other)
    shares = (np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (one, other))
    distance = np.max(np.abs(np.subtract(*shares)))
    bound = np.sqrt(-np.log(false_alarms / 2) / 2) * np.sqrt(1 / len(one) + 1 / len(other))
    assert distance < bound, (distance, bound)
