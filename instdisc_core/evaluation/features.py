"""The features that are evaluated: embedding, encoder features, feature maps, and pixels."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from instdisc_core import native_layers
from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.encoders import STAGES
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_finite


def embeddings(
    model: EmbeddingModel, source: ImageSource, batch_size: int = 256, verbose: bool = False
) -> np.ndarray:
    """Unit embeddings ``(n, embedding_dim)``, float32, of all images of a source, not augmented.

    Raises:
        ValueError: embeddings that are not finite.
    """
    rows = np.asarray(model.predict(source.ordered(batch_size), verbose=int(verbose)), "float32")
    require_finite("embeddings", rows)
    return rows


def encoder_features(
    model: EmbeddingModel, source: ImageSource, batch_size: int = 256, verbose: bool = False
) -> np.ndarray:
    """The encoder's features ``(n, features)``, float32, before the projection.

    Raises:
        ValueError: features that are not finite.
    """
    return _computed(
        lambda images: model.encode(images, training=False), source, batch_size, verbose
    )


def stage_names(model: EmbeddingModel) -> list[str]:
    """The stages ``conv1`` to ``conv5`` that the encoder has as layers."""
    layers = getattr(model.encoder, "layers", [])
    return [name for name in STAGES if name in {layer.name for layer in layers}]


def stage_features(
    model: EmbeddingModel,
    source: ImageSource,
    stage: str,
    max_features: int = 2048,
    batch_size: int = 256,
) -> np.ndarray:
    """The feature map of one stage, average-pooled until it is small enough.

    Args:
        model: an EmbeddingModel whose encoder is a functional Keras model.
        source: the images.
        stage: name of a layer of the encoder whose output is a feature map.
        max_features: at most this many features; the pooling window is the smallest square that
            reaches it.
        batch_size: images at a time.

    Returns:
        Array ``(n, features)``, float32.

    Raises:
        ValueError: the encoder has no layer of that name, ``max_features`` is below the number of
            channels, or features that are not finite.

    Source:
        Zhang et al., ECCV 2016, the protocol that Wu et al. follow, with about 9,000 features.

    Example:
    ```python
    from instdisc_core.evaluation.features import stage_features

    encoder = resnet(10, (32, 32, 3), stem="patch", width=4, include_preprocessing=True)
    model = InstanceDiscrimination(encoder, num_instances=len(photos))
    features = stage_features(model, photos, "conv3")
    ```
    """
    names = [layer.name for layer in getattr(model.encoder, "layers", [])]
    require(
        stage in names,
        f"stage={stage!r}",
        f"the name of one of the encoder's layers: {', '.join(names) or 'it has none'}",
    )
    layer = keras.Model(model.encoder.inputs, model.encoder.get_layer(stage).output)

    def pooled(images: Tensor) -> Tensor:
        if model.preprocessing is not None:
            images = model.preprocessing(images)
        maps = ops.cast(native_layers.call(layer, images, training=False), "float32")
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


class Pixels(NamedTuple):
    """Pixels as features.

    Attributes:
        rows: unit rows ``(n, height * width * 3)``, float32.
        mean: what was subtracted from each image, ``(height * width * 3,)``.
    """

    rows: np.ndarray
    mean: np.ndarray


def pixels(source: ImageSource, mean: np.ndarray | None = None) -> Pixels:
    """The pixels of all images, minus a mean image, as unit rows.

    Args:
        source: the images.
        mean: of the training images; None is the mean of these images.

    Example:
    ```python
    from instdisc_core.evaluation.features import pixels

    rows, mean = pixels(train)
    test_rows = pixels(test, mean).rows
    ```
    """
    rows = source.images().reshape(len(source), -1).astype("float32")
    mean = rows.mean(axis=0) if mean is None else mean
    return Pixels(unit(rows - mean), mean)


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows divided by their lengths; a row of zeros stays zero.

    Example: ``rows = evaluation.unit(np.array([[3.0, 4.0], [0.0, 0.0]]))``
    """
    wide = rows.astype("float32") if rows.dtype == "float16" else rows  # whose squares overflow
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = wide / np.where(lengths > 0, lengths, 1)
    return units.astype("float16") if rows.dtype == "float16" else units


def _cells(maps: Tensor, square: int) -> int:
    """How many squares of this side cover a feature map."""
    return -(-maps.shape[1] // square) * -(-maps.shape[2] // square)


def _computed(
    function: Callable[[Tensor], Tensor],
    source: ImageSource,
    batch_size: int,
    verbose: bool = False,
) -> np.ndarray:
    """``function`` of all images, computed in batches: a float32 array of finite numbers."""
    batches = source.ordered(batch_size)
    rows = np.asarray(_Function(function).predict(batches, verbose=int(verbose)))
    require_finite("features", rows)
    return rows


class _Function(keras.Model):
    """A function as a model, so that ``predict`` compiles it and keeps no gradients."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(name="function", dtype="float32", autocast=False)
        self.function = function

    def call(self, images: Tensor) -> Tensor:
        """The function's result in float32."""
        return ops.cast(self.function(images), "float32")
