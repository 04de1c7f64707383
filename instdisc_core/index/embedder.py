"""The part of a model that an index keeps: from images to unit rows, without a bank."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import unit
from instdisc_core.evaluation.features import embeddings, encoder_features


class Embedded(NamedTuple):
    """Rows, and the model that computed them."""

    rows: np.ndarray
    model: EmbeddingModel


def embedder_of(model: EmbeddingModel, size: tuple[int, int] | None) -> EmbeddingModel:
    """What a model embeds images of this size with: its preprocessing, encoder and projector."""
    if type(model) is EmbeddingModel:
        return model
    embedder = EmbeddingModel(
        model.encoder,
        model.embedding_dim,
        model.projector,
        preprocessing=model.preprocessing,
        dtype=model.dtype_policy,
    )
    if size is not None:
        embedder.build((None, *size, 3))
    return embedder


def mirrored_embeddings(
    model: EmbeddingModel, source: ImageSource, mirror: bool, batch_size: int, verbose: bool
) -> np.ndarray:
    """Unit embeddings of images; if ``mirror``, of each image and its mirror image together.

    The sum of the two embeddings, divided by its length, is the same for an image and its mirror
    image.
    """
    rows = embeddings(model, source, batch_size, verbose)
    if not mirror:
        return rows
    return unit(rows + embeddings(model, _Mirrored(source), batch_size, verbose))


def embedded(
    encoder: Any,
    source: ImageSource,
    preprocessing: keras.layers.Layer | Literal["torch"] | None,
    center: bool,
    mirror: bool,
    batch_size: int,
    verbose: bool,
) -> Embedded:
    """The features of an encoder as unit rows, after their mean is subtracted if ``center``."""
    bare = EmbeddingModel(encoder, 1, keras.layers.Identity(), preprocessing=preprocessing)
    sides = [source, _Mirrored(source)] if mirror else [source]
    features = [encoder_features(bare, side, batch_size, verbose) for side in sides]
    projector: keras.layers.Layer = keras.layers.Identity()
    if center:
        mean = np.mean([side.mean(axis=0, dtype="float64") for side in features], axis=0)
        mean = mean.astype("float32")
        features = [side - mean for side in features]
        projector = keras.layers.Normalization(mean=mean, variance=np.ones_like(mean))
        projector.build((None, len(mean)))  # within a model's build its mean would have no value
    dim = features[0].shape[1]
    model = EmbeddingModel(encoder, dim, projector, preprocessing=preprocessing)
    model.build((None, *source.size, 3))
    rows = [unit(side) for side in features]
    return Embedded(unit(rows[0] + rows[1]) if mirror else rows[0], model)


def weights_digest(model: EmbeddingModel) -> str:
    """32 hexadecimal digits of all weights of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.weights:
        digest.update(ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()


class _Mirrored(ImageSource):
    """The images of a source with left and right exchanged."""

    def __init__(self, whole: ImageSource) -> None:
        super().__init__(whole.manifest, whole.size, workers=whole.workers)
        self._whole = whole

    def start(self, indices: ArrayLike) -> Callable[[], np.ndarray]:
        """See ``ImageSource``."""
        wait = self._whole.start(indices)
        return lambda: np.ascontiguousarray(wait()[:, :, ::-1])
