"""Labels of two sources that mean the same."""

from typing import NamedTuple

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.validation import require


class CommonLabels(NamedTuple):
    """Labels of training and test images: equal values are equal classes.

    Attributes:
        train: class names or integers ``(n,)``.
        test: the same of the test images, ``(q,)``.
    """

    train: np.ndarray
    test: np.ndarray


def common_labels(
    train: ImageSource, test: ImageSource, unseen: bool = False
) -> CommonLabels | None:
    """The labels of two sources in one numbering: class names, where the sources have them.

    Each folder numbers its own subfolders, so equal integers in two folders can be different
    classes.

    Args:
        train, test: the sources.
        unseen: test images may be of classes that training lacks.

    Returns:
        The labels; None where neither source has any.

    Raises:
        ValueError: labels or class names on one side only, or a test class that training lacks.
    """
    sides = {"train": train, "test": test}
    for what, values in (
        ("labels", [s.labels for s in sides.values()]),
        ("class names", [s.class_names for s in sides.values()]),
    ):
        have = [side for side, value in zip(sides, values, strict=True) if value is not None]
        require(
            len(have) != 1,
            f"{what} for {''.join(have)} only",
            "both or none",
            "A folder with a single class has them by ImageFolder(..., class_names=...).",
        )
    if train.labels is None or test.labels is None:
        return None
    labels = CommonLabels(_named(train.labels, train), _named(test.labels, test))
    lacking = np.setdiff1d(labels.test, labels.train).tolist()
    require(
        unseen or not lacking,
        f"test labels {lacking}",
        "labels that the training images have too",
        "Leave these test images out, or add training images of these classes.",
    )
    return labels


def _named(labels: np.ndarray, source: ImageSource) -> np.ndarray:
    return labels if source.class_names is None else np.asarray(source.class_names)[labels]
