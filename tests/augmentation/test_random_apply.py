"""A layer on some of the images."""

import keras
import numpy as np
from differentiation import numpy

from instdisc_core.augmentation import RandomApply


class WritesIntoItsInput(keras.layers.Layer):
    """As some of Keras's layers do under PyTorch."""

    def call(self, images):
        if keras.backend.backend() == "torch":
            images += 1
            return images
        return images + 1


def test_apply_to_some_changes_some_and_leaves_the_others():
    images = np.zeros((1000, 2, 2, 1), "float32")
    out = numpy(RandomApply(WritesIntoItsInput(), 0.8, seed=0)(images, training=True))
    changed = out[:, 0, 0, 0]
    assert np.array_equal(out, np.broadcast_to(changed[:, None, None, None], out.shape))
    assert set(changed) == {0, 1}
    assert 0.75 < changed.mean() < 0.85
    assert np.array_equal(numpy(RandomApply(WritesIntoItsInput(), 0.8)(images)), images)
