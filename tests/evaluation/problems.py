"""Small images and embeddings that several tests of evaluation share."""

import json
import re

import keras
import numpy as np
from models import small_model

from instdisc_core import NonParametricSoftmax
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import Retrieval


def blobs(n=120, classes=3, spread=0.1, seed=0):
    """Points around one center a class: features and labels."""
    rng = np.random.default_rng(seed)
    centers = np.eye(classes, 8)
    labels = np.arange(n) % classes
    return centers[labels] + spread * rng.standard_normal((n, 8)), labels


def colors(n=24, size=16, seed=0):
    """Images of noise around one of two colors, in two classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    base = np.array([[200, 60, 60], [60, 60, 200]])[labels][:, None, None]
    images = np.clip(base + rng.normal(0, 20, (n, size, size, 3)), 0, 255)
    return ImageArray(images.astype("uint8"), labels, class_names=["red", "blue"])


def small_encoder():
    """Two blocks with the names of five stages: each stage is a map that costs nothing to compute.

    ``conv2`` has 16 x 16 positions and 4 channels. A NaN passes through tanh on every framework.
    """
    images = keras.Input((16, 16, 3))
    maps = keras.layers.Rescaling(1 / 128, -1)(images)
    maps = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(maps)
    maps = keras.layers.BatchNormalization()(maps)
    maps = keras.layers.Activation("tanh", name="conv2")(maps)
    maps = keras.layers.AveragePooling2D(4, name="conv3")(maps)
    maps = keras.layers.Conv2D(8, 3, padding="same", name="conv4")(maps)
    maps = keras.layers.Activation("tanh", name="conv5")(maps)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps))


def build_model(augmenter=None):
    """An untrained model that knows the images of ``colors()``."""
    keras.utils.set_random_seed(0)
    model = small_model(small_encoder(), 24, 8, NonParametricSoftmax(0.1), augmenter=augmenter)
    model.manifest = colors().manifest
    model.build((None, 16, 16, 3))
    return model


def on_a_circle(n):
    angles = np.linspace(0, np.pi, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def named(n, labels=None):
    images = np.zeros((n, 4, 4, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(n)
    return ImageArray(images, labels, names=[f"<{i}>.jpg" for i in range(n)])


SAME, OTHER, NEITHER = "#029E73", "#D55E00", "#888888"


# Queries 0, 3 and 5 of six images, with the neighbors of each, and whether they are of its class.
LABELS = [0, 0, 0, 1, 0, 1]


SHOWN = [(0, [1, 2], [SAME, SAME]), (3, [5, 1], [SAME, OTHER]), (5, [4, 0], [OTHER, OTHER])]


def shown(labels):
    source = named(6, labels)
    indices, neighbors = np.array([0, 3, 5]), np.array([found for _, found, _ in SHOWN])
    return Retrieval(source, source, indices, neighbors, 0.9 - 0.1 * neighbors)


def page_data(path):
    """What the script of a page that is one file, or of ``data.js``, defines."""
    return json.loads(re.search(r"const PAGE = (.*);\n", path.read_text(encoding="utf-8"))[1])
