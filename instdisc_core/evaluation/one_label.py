"""The accuracy that one labeled image per class gives."""

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.validation import require, require_count, require_finite


def one_label_accuracies(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    draws: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Accuracies where only one training image of each class, drawn at random, has its label.

    An embedding gets the label of the most similar of these images.

    Args:
        train_features, train_labels: unit rows ``(n, embedding_dim)``, and ``(n,)``.
        features, labels: the same of the test images.
        draws: how many times the labeled images are drawn.
        seed: of the draws.

    Returns:
        Array ``(draws,)``, each in ``[0, 1]``.

    Raises:
        ValueError: features and labels that don't fit, features that are not finite, or ``draws``
            below 1.

    Example:
    ```python
    rows, queries = (model.predict(source.ordered()) for source in (train, test))
    print(one_label_accuracies(rows, train.labels, queries, test.labels).mean())
    ```
    """
    require_count("draws", draws)
    train_features, features = np.asarray(train_features), np.asarray(features)
    train_labels, labels = np.asarray(train_labels), np.asarray(labels)
    for name, rows, of in (
        ("train_features", train_features, train_labels),
        ("features", features, labels),
    ):
        require(
            rows.ndim == 2 and len(rows) > 0 and of.shape == rows.shape[:1],
            f"{name} of shape {rows.shape} and labels of shape {of.shape}",
            "shapes (n, embedding_dim) and (n,)",
        )
        require_finite(name, rows)
    rng = np.random.default_rng(seed)
    classes = np.unique(train_labels)
    of_class = [np.flatnonzero(train_labels == c) for c in classes]
    accuracies = np.empty(draws)
    for draw in range(draws):
        labeled = [rng.choice(members) for members in of_class]
        nearest = np.argmax(features @ train_features[labeled].T, axis=1)
        accuracies[draw] = np.mean(classes[nearest] == labels)
    return accuracies
