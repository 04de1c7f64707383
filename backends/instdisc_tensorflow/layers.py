"""How TensorFlow computes layers that Keras writes in several operations.

Delete this file when Keras calls it itself; Keras 3.15 normalizes a batch from its moments.
"""

from typing import Any

import tensorflow as tf
from keras import layers


def batch_normalization(layer: Any, x: tf.Tensor, training: bool) -> Any:
    """``gamma (x - mean) / std + beta`` with the moments of the batch of images."""
    other = layer.renorm or layer.synchronized or not (layer.center and layer.scale)
    other = other or layer.compute_dtype == "float64"
    if (
        not (training and layer.trainable)
        or other
        or len(x.shape) != 4
        or layer.axis not in (-1, 3)
    ):
        return NotImplemented
    x = tf.cast(x, layer.compute_dtype)
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    # Keras's moving variance is that of the batch; this one is corrected by n / (n - 1).
    n = tf.cast(tf.size(x) // x.shape[3], variance.dtype)
    for moving, batch in (
        (layer.moving_mean, mean),
        (layer.moving_variance, variance * (n - 1) / n),
    ):
        moving.assign(layer.momentum * moving.value + (1 - layer.momentum) * batch)
    return y


LAYERS = {layers.BatchNormalization: batch_normalization}
