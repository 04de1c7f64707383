"""The tables of Walker's alias method."""

import numpy as np
from numpy.typing import ArrayLike


def alias_tables(probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The alias tables of a distribution, exact up to float64 rounding.

    The probabilities are scaled to the mean 1. What the small ones lack and what the large ones
    have above 1, both summed up in order, have the same total. The alias of a small slot is the
    large one whose excess covers the point where the small one's lack begins. A large slot that
    gives away more than its excess is filled by the next large one.

    Args:
        probabilities: float64 array ``(n,)`` that sums to 1.

    Returns:
        ``threshold`` ``(n,)``, in ``[0, 1]``, and ``alias`` ``(n,)``, int64: slot ``j`` is ``j``
        below its threshold and ``alias[j]`` above it.

    Example:
    ```python
    from instdisc_core.alias_tables import alias_tables

    threshold, alias = alias_tables([0.25, 0.75])  # [0.5, 1.0] and [1, 1]
    ```
    """
    scaled = np.asarray(probabilities, "float64")
    scaled = scaled * len(scaled)
    threshold = np.minimum(scaled, 1.0)
    alias = np.arange(len(scaled))
    full = min(1.0, scaled.max())  # rounding can leave all a little below 1
    small, large = np.flatnonzero(scaled < full), np.flatnonzero(scaled >= full)
    if not len(small):
        return threshold, alias
    lack = np.cumsum(1 - scaled[small])
    over = np.cumsum(scaled[large] - 1)
    last = len(large) - 1
    lack = np.concatenate([[0.0], lack])
    fills = np.minimum(np.searchsorted(over, lack[:-1], side="right"), last)  # sorted
    alias[small] = large[fills]
    # What each large slot, but the last, gives away beyond its excess.
    ends = lack[np.searchsorted(fills, np.arange(last), side="right")]
    beyond = np.clip(ends - over[:-1], 0, 1)
    threshold[large[:-1]] = 1 - beyond
    alias[large[:-1]] = np.where(beyond > 0, large[1:], large[:-1])
    return threshold, alias
