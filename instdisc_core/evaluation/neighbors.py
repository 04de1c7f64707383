"""The weighted k-nearest-neighbor classifier."""

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.bank_ops import BankOps
from instdisc_core.host_rows import HostRows
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.sharded_rows import ShardedRows, whole_shape
from instdisc_core.streamed_bank_ops import bank_ops_for
from instdisc_core.types import Tensor
from instdisc_core.validation import (
    check_features,
    require,
    require_count,
    require_finite,
    require_temperature,
)

DEFAULT_K = 200


def weighted_knn(
    features: Tensor,
    train_features: Tensor,
    train_labels: ArrayLike,
    k: int | None = None,
    temperature: float = 0.07,
    batch_size: int = 256,
    backend: str | BankOps | None = None,
) -> np.ndarray:
    """Classify embeddings by the labels of their nearest neighbors.

    Each of the ``k`` most similar training rows votes for its label with the weight
    ``exp(cos(v_j, f_i) / temperature)``; the label with the largest sum wins.

    Args:
        features: unit embeddings to classify, ``(queries, embedding_dim)``.
        train_features: unit embeddings ``(n, embedding_dim)``: an array, or a bank's ``rows``.
        train_labels: ``(n,)``, integers or strings; any number of classes.
        k: number of neighbors that vote, in ``[1, n]``; None is the smaller of 200 and ``n``.
        temperature: at least 1e-6; the paper uses 0.07 on ImageNet, 0.1 on CIFAR-10.
        batch_size: queries scored at a time. It changes the memory in use, not the result.
        backend: see ``registry.get_bank_ops``.

    Returns:
        NumPy array ``(queries,)`` of labels, of the dtype of ``train_labels``.

    Raises:
        ValueError: shapes that don't fit each other, k out of range, too low a temperature, or
            embeddings that are not finite.

    Source:
        Wu et al., section 3.4.

    Example:
    ```python
    queries = model.predict(test.ordered())
    predicted = weighted_knn(queries, model.memory_bank.rows, train.labels, k=20)
    ```
    """
    train_labels = np.asarray(train_labels)
    if not isinstance(
        train_features, (QuantizedRows, ShardedRows, HostRows, keras.Variable)
    ):  # a bank's rows are finite
        train_features = ops.convert_to_tensor(train_features)
        require_finite("train_features", ops.convert_to_numpy(train_features))
    shape = whole_shape(train_features)
    require(
        len(shape) == 2 and train_labels.shape == shape[:1],
        f"train_features of shape {shape} and train_labels of shape {train_labels.shape}",
        "shapes (n, embedding_dim) and (n,)",
    )
    n, embedding_dim = shape
    require(n > 0, "no training embeddings", "at least one")
    k = min(DEFAULT_K, n) if k is None else k
    require_count("k", k)
    require(k <= n, f"k={k}", f"at most the {n} training embeddings")
    require_temperature(temperature)
    require_count("batch_size", batch_size)
    features = ops.convert_to_tensor(check_features(features, embedding_dim), "float32")
    require_finite("features", ops.convert_to_numpy(features))

    classes, train_classes = np.unique(train_labels, return_inverse=True)
    bank_ops = bank_ops_for(train_features, backend)
    predicted = np.empty(len(features), train_labels.dtype)
    for start in range(0, len(features), batch_size):
        queries = features[start : start + batch_size]
        scores, neighbors = bank_ops.top_k(queries, train_features, k)
        scores = ops.convert_to_numpy(scores).astype("float64")
        neighbors = train_classes[ops.convert_to_numpy(neighbors)]
        weights = np.exp((scores - scores[:, :1]) / temperature)
        votes = np.zeros((len(scores), len(classes)))
        np.add.at(votes, (np.arange(len(scores))[:, None], neighbors), weights)
        predicted[start : start + batch_size] = classes[votes.argmax(axis=1)]
    return predicted


def knn_accuracy(
    features: Tensor,
    labels: ArrayLike,
    train_features: Tensor,
    train_labels: ArrayLike,
    k: int | None = None,
    temperature: float = 0.07,
    batch_size: int = 256,
    backend: str | BankOps | None = None,
) -> float:
    """The share of embeddings for which ``weighted_knn`` predicts the given label.

    Args:
        features: unit embeddings to classify, ``(queries, embedding_dim)``.
        labels: their true labels, ``(queries,)``.
        train_features, train_labels, k, temperature, batch_size, backend: see ``weighted_knn``.

    Returns:
        A float in ``[0, 1]``.

    Raises:
        ValueError: what ``weighted_knn`` raises, or labels of another number than the embeddings.

    Example:
    ```python
    knn_accuracy(model.predict(test.ordered()), test.labels, bank.rows, train.labels, k=20)
    ```
    """
    labels = np.asarray(labels)
    predicted = weighted_knn(
        features, train_features, train_labels, k, temperature, batch_size, backend
    )
    require(
        labels.shape == predicted.shape,
        f"labels of shape {labels.shape}",
        f"one for each of the {len(predicted)} embeddings",
    )
    return float(np.mean(predicted == labels))
