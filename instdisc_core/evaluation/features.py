"""What is evaluated: the embedding, the encoder's features, and the maps of its stages."""

import keras
import numpy as np
from keras import ops

from instdisc_core.encoders import STAGES
from instdisc_core.validation import require, require_finite


def embeddings(model, source, batch_size=256):
    """Unit embeddings ``(n, embedding_dim)``, float32, of all images of a source, not augmented.

    Raises:
        ValueError: embeddings that are not finite.
    """
    rows = np.asarray(model.predict(source.ordered(batch_size), verbose=0), "float32")
    require_finite("embeddings", rows)
    return rows


def encoder_features(model, source, batch_size=256):
    """The encoder's features ``(n, features)``, float32, before the projection."""
    return _computed(lambda images: model.encoder(images, training=False), source, batch_size)


def stage_names(model):
    """Those of ``conv1`` to ``conv5`` that the encoder has as layers."""
    layers = getattr(model.encoder, "layers", [])
    return [name for name in STAGES if name in {layer.name for layer in layers}]


def stage_features(model, source, stage, max_features=2048, batch_size=256):
    """The map of one stage, averaged over squares until it is small enough, as ``(n, features)``.

    Args:
        model: an InstanceDiscrimination whose encoder is a functional Keras model.
        source: the ImageSource.
        stage: name of a layer of the encoder whose output is a map.
        max_features: the most features that are kept; the smallest squares that reach it are taken.
        batch_size: images at a time.

    Raises:
        ValueError: the encoder has no layer of that name.

    Source:
        Zhang et al., ECCV 2016, the protocol that Wu et al. follow, with about 9,000 features.

    Example: ``features = stage_features(model, source, "conv3")``
    """
    names = [layer.name for layer in getattr(model.encoder, "layers", [])]
    require(
        stage in names,
        f"stage={stage!r}",
        f"the name of one of the encoder's layers: {', '.join(names) or 'it has none'}",
    )
    layer = keras.Model(model.encoder.inputs, model.encoder.get_layer(stage).output)

    def pooled(images):
        maps = ops.cast(layer(images, training=False), "float32")
        side, channels = max(maps.shape[1:3]), maps.shape[3]
        square = next(s for s in range(1, side + 1) if _cells(maps, s) * channels <= max_features)
        if square > 1:
            maps = ops.average_pool(maps, square, square, "same", data_format="channels_last")
        return ops.reshape(maps, (maps.shape[0], -1))

    require(
        layer.output.shape[-1] <= max_features,
        f"max_features={max_features}",
        f"at least the {layer.output.shape[-1]} channels of {stage}",
    )
    return _computed(pooled, source, batch_size)


def pixels(source, mean=None):
    """The pixels themselves, less the mean of the training images, as unit rows.

    Returns:
        The rows ``(n, height * width * 3)``, float32, and the mean.
    """
    rows = source.images().reshape(len(source), -1).astype("float32")
    mean = rows.mean(axis=0) if mean is None else mean
    return unit(rows - mean), mean


def unit(rows):
    """The rows divided by their lengths; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _cells(maps, square):
    return -(-maps.shape[1] // square) * -(-maps.shape[2] // square)


def _computed(function, source, batch_size):
    """``function`` of all images, a batch at a time, as a float32 array of finite numbers."""
    rows = np.asarray(_Function(function).predict(source.ordered(batch_size), verbose=0))
    require_finite("features", rows)
    return rows


class _Function(keras.Model):
    """A function as a model, so that ``predict`` compiles it and keeps no gradients."""

    def __init__(self, function):
        super().__init__(name="function", dtype="float32", autocast=False)
        self.function = function

    def call(self, images):
        """The function's result in float32."""
        return ops.cast(self.function(images), "float32")
