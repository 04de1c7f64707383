"""Which images of a labeled set are held out."""

import numpy as np
from sklearn.model_selection import train_test_split

HELD_OUT, SEED = 0.2, 0


def with_a_fifth_held_out(source):
    """Four fifths of the images to train on, and a fifth held out, of every class.

    They are the same in every run.
    """
    parts = train_test_split(
        np.arange(len(source)), test_size=HELD_OUT, stratify=source.labels, random_state=SEED
    )
    return tuple(source.subset(np.sort(part)) for part in parts)
