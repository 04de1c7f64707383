"""Indices of 32 bits, and images that are finite."""

import keras
import numpy as np
from differentiation import numpy
from models import SIZE

from instdisc_core.data.checked import finite_images, narrow

IMAGES = np.random.default_rng(0).random((SIZE, 6)).astype("float32")


def test_narrow_indices_are_equal_and_other_batches_stay():
    images, indices, weights = narrow((IMAGES, np.arange(SIZE), np.ones(SIZE)))
    assert indices.dtype == "int32"
    assert indices.tolist() == list(range(SIZE))
    assert images is IMAGES
    assert weights.tolist() == [1] * SIZE
    for batch in (IMAGES, (IMAGES,), (IMAGES, np.ones(SIZE)), {"images": IMAGES}):
        assert narrow(batch) is batch


def test_an_image_of_two_parts_is_finite_if_both_are():
    parts = {"a": np.zeros((3, 2), "float32"), "b": np.zeros((3, 2, 2), "float16")}
    parts["a"][0, 1], parts["b"][2, 1, 1] = np.nan, np.inf
    found = finite_images(keras.tree.map_structure(keras.ops.convert_to_tensor, parts))
    assert numpy(found).tolist() == [0, 1, 0]
    assert finite_images(keras.ops.zeros((3, 2), "uint8")) is None
