"""Heads of several layers: projectors and predictors of methods that compare two views."""

from collections.abc import Sequence

import keras
from keras import layers

from instdisc_core.validation import require_count


def projection_head(
    embedding_dim: int, hidden: Sequence[int] = (2048, 2048), normalized: bool = True
) -> keras.Sequential:
    """A projector: dense layers, each with batch normalization, and ReLU after all but the last.

    Args:
        embedding_dim: width of the last layer, ``d``.
        hidden: widths of the layers before it; none makes it linear.
        normalized: whether batch normalization follows the last layer, too.

    Returns:
        A model from features ``(batch, any)`` to ``(batch, embedding_dim)``.

    Raises:
        ValueError: a width below 1.

    Source:
        Dwibedi et al., ICCV 2021 (NNCLR), section 4.1: three layers, the last without ReLU.

    Example: ``projector = projection_head(128, hidden=(512, 512))``
    """
    require_count("embedding_dim", embedding_dim)
    last = [layers.Dense(embedding_dim, use_bias=not normalized)]
    last += [_batch_norm()] if normalized else []
    return keras.Sequential([*_hidden(hidden), *last], name="projector")


def prediction_head(embedding_dim: int, hidden: Sequence[int] = (4096,)) -> keras.Sequential:
    """A predictor: dense layers, with batch normalization and ReLU after all but the last.

    Args:
        embedding_dim: width of its input and of the last layer, ``d``.
        hidden: widths of the layers before it.

    Returns:
        A model from projections ``(batch, embedding_dim)`` to predictions of the same shape.

    Raises:
        ValueError: a width below 1.

    Source:
        Dwibedi et al., ICCV 2021 (NNCLR), section 4.1: two layers.

    Example: ``predictor = prediction_head(128, hidden=(512,))``
    """
    require_count("embedding_dim", embedding_dim)
    return keras.Sequential([*_hidden(hidden), layers.Dense(embedding_dim)], name="predictor")


def _hidden(widths: Sequence[int]) -> list[keras.layers.Layer]:
    for width in widths:
        require_count("hidden", width)
    parts = [(layers.Dense(w, use_bias=False), _batch_norm(), layers.ReLU()) for w in widths]
    return [layer for part in parts for layer in part]


def _batch_norm() -> keras.layers.Layer:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
