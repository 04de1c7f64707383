"""The part of a model that an index keeps: from images to unit rows, without a bank."""

import hashlib
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import unit
from instdisc_core.evaluation.features import encoder_features


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


def embedded(
    encoder: Any,
    source: ImageSource,
    preprocessing: keras.layers.Layer | Literal["torch"] | None,
    center: bool,
    batch_size: int,
    verbose: bool,
) -> Embedded:
    """The features of an encoder as unit rows, after their mean is subtracted if ``center``."""
    bare = EmbeddingModel(encoder, 1, keras.layers.Identity(), preprocessing=preprocessing)
    features = encoder_features(bare, source, batch_size, verbose)
    projector: keras.layers.Layer = keras.layers.Identity()
    if center:
        mean = features.mean(axis=0, dtype="float64").astype("float32")
        features = features - mean
        projector = keras.layers.Normalization(mean=mean, variance=np.ones_like(mean))
        projector.build((None, len(mean)))  # within a model's build its mean would be a placeholder
    model = EmbeddingModel(encoder, features.shape[1], projector, preprocessing=preprocessing)
    model.build((None, *source.size, 3))
    return Embedded(unit(features), model)


def weights_digest(model: EmbeddingModel) -> str:
    """32 hexadecimal digits of all weights of a model."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.weights:
        digest.update(ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()
