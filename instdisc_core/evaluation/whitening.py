"""Whitened features: an embedding for search, in which no few directions outweigh the others."""

from typing import NamedTuple

import keras
import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.features import encoder_features, unit
from instdisc_core.validation import require, require_finite, require_number

SHRINKAGE = 0.1
BLOCK = 2**14  # rows that are held in float64 at a time


class Whitening(NamedTuple):
    """A linear map of features ``x``, ``(x - mean) matrix``.

    Attributes:
        mean: ``(features,)``, float32.
        matrix: ``(features, features)``, float32.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The mapped features as unit rows, of the same shape."""
        return unit((features - self.mean) @ self.matrix)


def whitening(features: np.ndarray, shrinkage: float = SHRINKAGE) -> Whitening:
    """The map after which features vary nearly as much in every direction.

    With mean ``m`` and covariance ``V diag(l) V^T`` of the features, the matrix is
    ``V diag((l + shrinkage mean(l))^(-1/2))``.

    Args:
        features: rows ``(n, features)``, at least two.
        shrinkage: greater than 0. A direction whose variance is far below this multiple of the mean
            variance stays small: it is mostly noise.

    Raises:
        ValueError: fewer than two rows, rows that are all the same or not finite, or a shrinkage
            out of its range.

    Example:
    ```python
    from instdisc_core.evaluation import whitening

    white = whitening(np.random.default_rng(0).normal(size=(100, 8)))
    rows = white(np.ones((1, 8)))  # unit rows
    ```
    """
    require_number("shrinkage", shrinkage, 0, open_below=True)
    require_finite("features", features)
    require(
        len(features) > 1 and np.ptp(features, axis=0).any(),
        f"{len(features)} rows of features" + (" that are all the same" if len(features) else ""),
        "at least two that differ",
        "If an encoder returns the same for all images, they may be the same picture, or it has "
        "collapsed: lower the learning rate.",
    )
    mean = features.mean(axis=0, dtype="float64")
    blocks = (features[i : i + BLOCK] - mean for i in range(0, len(features), BLOCK))
    covariance = sum(block.T @ block for block in blocks) / len(features)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0)  # rounding makes some of the smallest negative
    matrix = directions / np.sqrt(variances + shrinkage * variances.mean())
    return Whitening(mean.astype("float32"), matrix.astype("float32"))


def whitened(
    model: EmbeddingModel,
    source: ImageSource,
    shrinkage: float = SHRINKAGE,
    batch_size: int = 256,
) -> EmbeddingModel:
    """A model of the same encoder, whose embedding is the encoder's features, whitened.

    An embedding that was trained to tell images apart keeps what the loss needed. The encoder's
    features hold more, but a few directions outweigh the others; whitening takes that away. Nothing
    is trained, and no labels are used. Train the encoder further, and the whitening no longer fits.

    Args:
        model: an EmbeddingModel, trained.
        source: the ImageSource to fit the whitening on, such as the training images.
        shrinkage: see ``whitening``.
        batch_size: images at a time.

    Returns:
        An EmbeddingModel for ``predict``, ``evaluate`` of this package, and an index. It is saved
        and loaded as any Keras model, and has no memory bank.

    Raises:
        ValueError: as ``whitening``.

    Example:
    ```python
    from instdisc_core.evaluation import whitened

    embeddings = whitened(model, photos).predict(photos.ordered())
    ```
    """
    mean, matrix = whitening(encoder_features(model, source, batch_size), shrinkage)
    projector = keras.layers.Dense(len(mean), name="whitening", dtype="float32")
    searched = EmbeddingModel(
        model.encoder, len(mean), projector, preprocessing=model.preprocessing
    )
    searched.build((None, *source.size, 3))
    projector.set_weights([matrix, -mean @ matrix])
    searched.manifest = model.manifest
    return searched
