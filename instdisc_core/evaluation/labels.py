"""Labels of two sources that mean the same."""

import numpy as np

from instdisc_core.validation import require


def common_labels(train, test):
    """The labels of two ImageSources, comparable: by the classes' names where they have names.

    Two folders number their classes each by its own subfolders, so equal numbers need not be equal
    classes.

    Returns:
        Two arrays, of strings or of integers; None twice where neither source has labels.

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
    if train.labels is None:
        return None, None
    labels = train.labels, test.labels
    if train.class_names is not None:
        pairs = zip((train, test), labels, strict=True)
        labels = tuple(np.asarray(source.class_names)[own] for source, own in pairs)
    unseen = np.setdiff1d(labels[1], labels[0]).tolist()
    require(not unseen, f"test labels {unseen}", "labels that the training images have too")
    return labels
