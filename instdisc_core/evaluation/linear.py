"""Linear classifiers on frozen features: the paper's SVM, and logistic regression."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.validation import require, require_finite

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0)
HELD_OUT = 0.2
UNCHOSEN = 1.0  # the strength where no image can be held out to choose it

Classifier: TypeAlias = Literal["svm", "logistic"]


class LinearAccuracy(NamedTuple):
    """What ``linear_accuracy`` measures.

    Attributes:
        accuracy: on the test images, in ``[0, 1]``.
        strength: the value of scikit-learn's ``C`` that was chosen.
    """

    accuracy: float
    strength: float


def linear_accuracy(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    classifier: Classifier = "svm",
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
) -> LinearAccuracy:
    """The accuracy of a linear classifier that is trained on frozen features.

    Features are shifted and scaled so that those of the training images have mean 0 and variance 1.
    The strength of the regularizer is the one with the best accuracy on a fifth of the *training*
    images, held out for that; the classifier is then trained on all training images. The test
    images are used once, for the accuracy. Where each class has one training image, none can be
    held out, and the strength is 1.

    Args:
        train_features, train_labels: ``(n, features)`` and ``(n,)``.
        features, labels: the same of the test images.
        classifier: ``"svm"``, a linear SVM with squared hinge loss, one class against the rest; or
            ``"logistic"``, logistic regression.
        strengths: values of scikit-learn's ``C`` to choose from; a single value is used directly.
        seed: of the split into fitted and held-out training images.

    Returns:
        A LinearAccuracy: the accuracy in ``[0, 1]``, and the ``C`` that was chosen.

    Raises:
        ValueError: features and labels that don't fit, features that are not finite, an unknown
            classifier, or one class only.

    Source:
        Wu et al., section 4.1 (SVM on the embedding) and 4.2 (on the stages of the encoder).

    Example:
    ```python
    train_rows, test_rows = (model.predict(source.ordered()) for source in (train, test))
    accuracy, strength = linear_accuracy(train_rows, train.labels, test_rows, test.labels)
    ```
    """
    from sklearn.preprocessing import StandardScaler

    train_features = np.asarray(ops.convert_to_numpy(train_features))
    features = np.asarray(ops.convert_to_numpy(features))
    train_labels, labels = np.asarray(train_labels), np.asarray(labels)
    for name, rows, of in (
        ("train_features", train_features, train_labels),
        ("features", features, labels),
    ):
        require(
            rows.ndim == 2 and of.shape == rows.shape[:1],
            f"{name} of shape {rows.shape} and labels of shape {of.shape}",
            "shapes (n, features) and (n,)",
        )
        require_finite(name, rows)
    require(classifier in ("svm", "logistic"), f"classifier={classifier!r}", "'svm' or 'logistic'")
    counts = np.unique(train_labels, return_counts=True)[1]
    require(len(counts) > 1, "training labels of one class", "at least two classes")
    scaler = StandardScaler().fit(train_features)
    train, test = scaler.transform(train_features), scaler.transform(features)
    require(len(strengths) > 0, "no strengths", "at least one")
    fitting, held = _split(train_labels, seed)
    strength = UNCHOSEN if len(strengths) > 1 else strengths[0]
    if len(held) and len(strengths) > 1:
        scores = {
            c: _fitted(classifier, c, train[fitting], train_labels[fitting], seed).score(
                train[held], train_labels[held]
            )
            for c in strengths
        }
        strength = max(strengths, key=lambda c: scores[c])
    fitted = _fitted(classifier, strength, train, train_labels, seed)
    return LinearAccuracy(float(fitted.score(test, labels)), strength)


def _split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images to fit on, of every class, and those that are held out: none if each class has one."""
    from sklearn.model_selection import train_test_split

    images = np.arange(len(labels))
    _, first, counts = np.unique(labels, return_index=True, return_counts=True)
    if counts.min() > 1 and len(counts) / HELD_OUT <= len(labels):
        return train_test_split(images, test_size=HELD_OUT, random_state=seed, stratify=labels)
    rest = np.random.default_rng(seed).permutation(np.setdiff1d(images, first))
    held = rest[: max(1, round(HELD_OUT * len(labels)))]
    return np.setdiff1d(images, held), held


def _fitted(
    classifier: Classifier, strength: float, features: np.ndarray, labels: np.ndarray, seed: int
) -> Any:
    """The trained classifier; one that has not fully converged is used as it is."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    if classifier == "svm":
        model = LinearSVC(C=strength, dual="auto", random_state=seed)
    else:
        model = LogisticRegression(C=strength, max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, labels)
