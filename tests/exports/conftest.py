"""A small index, and the exports that several tests read."""

import keras
import numpy as np
import pytest
from keras import layers

from instdisc_core.data import ImageArray
from instdisc_core.evaluation import whitened
from instdisc_core.frozen_encoder import frozen
from instdisc_core.index import ImageIndex

N, SIDE = 12, 8


@pytest.fixture(scope="session")
def photos():
    """Twelve images, of which the last is nearly the first."""
    pixels = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), "uint8")
    pixels[-1] = np.minimum(pixels[0], 254) + 1
    return ImageArray(pixels, names=[f"a/{i}.jpg" for i in range(N)])


@pytest.fixture(scope="session")
def index(photos):
    """Of whitened features, with mirrored images, as the command ``instdisc train`` writes it."""
    keras.utils.set_random_seed(0)
    network = [
        layers.Rescaling(1 / 127.5, -1),
        layers.Conv2D(16, 3, strides=2, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalAveragePooling2D(),
    ]
    encoder = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *network])
    return ImageIndex.from_model(whitened(frozen(encoder), photos), photos)
