"""Small images with names, and an encoder of them, that several tests of the index share."""

import keras
import numpy as np

from instdisc_core.data import ImageArray

N, SIDE, DIM = 12, 4, 6


def pixels(n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 3), "uint8")


def named(images, first=0):
    return ImageArray(images, names=[f"<{first + i}>.jpg" for i in range(len(images))])


def encoder():
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Dense(8)])
