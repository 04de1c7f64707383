"""Labels of images as integers, and what the classes are called."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.names import listed, printable
from instdisc_core.validation import require


class Labels(NamedTuple):
    """Labels and the names of the classes.

    Attributes:
        numbers: integers ``(n,)``, or None without labels.
        class_names: the name of each number, or None where classes have no names.
    """

    numbers: np.ndarray | None
    class_names: Sequence[str] | None


def is_inferred(labels: Any) -> bool:
    """Whether labels are to be those that the data have, and not given as an array."""
    return isinstance(labels, str) and labels == "inferred"


def numbered(labels: ArrayLike | None, class_names: Sequence[str] | None = None) -> Labels:
    """Integer labels as they are; others as the numbers of their names.

    Args:
        labels: ``(n,)``, or None.
        class_names: the names in the order of their numbers; None is those of the labels, sorted,
            and no names for integers.

    Raises:
        ValueError: ``class_names`` lacks a label.
    """
    if labels is None:
        return Labels(None, class_names)
    array = np.asarray(labels)
    if array.dtype.kind in "iu":
        return Labels(array, class_names)
    found, positions = np.unique(array, return_inverse=True)
    names = found.tolist() if class_names is None else list(class_names)
    unknown = [name for name in found.tolist() if name not in names]
    require(
        not unknown,
        f"labels {listed([str(name) for name in unknown])}",
        f"some of {', '.join(map(printable, map(str, names)))}",
        "Name all labels in class_names.",
    )
    return Labels(np.array([names.index(name) for name in found.tolist()])[positions], names)


def by_folder(names: Sequence[str], class_names: Sequence[str] | None = None) -> Labels:
    """Labels by the first part of each path; none where a path has one part, or all share it.

    Args:
        names: paths of the images.
        class_names: the names of the classes in the order of their labels; None is those of the
            paths, sorted.

    Raises:
        ValueError: ``class_names`` lacks a class.
    """
    parts = [PurePosixPath(name).parts for name in names]
    found = sorted({p[0] for p in parts})
    if class_names is None and (any(len(p) == 1 for p in parts) or len(found) == 1):
        return Labels(None, None)
    classes = found if class_names is None else list(class_names)
    unknown = [name for name in found if name not in classes]
    expected = f"some of {', '.join(map(printable, classes))}"
    remedy = "Name all subfolders in class_names, or remove those that are no class."
    require(not unknown, f"classes {listed(unknown)}", expected, remedy)
    numbers = {name: i for i, name in enumerate(classes)}
    return Labels(np.array([numbers[p[0]] for p in parts]), classes)
