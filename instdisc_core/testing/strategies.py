"""Hypothesis strategies for features, banks and indices.

They draw many values but few shapes, since some frameworks compile for each shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

# (batch, instances, embedding_dim): the smallest, odd sizes, and more rows than one block.
SHAPES = ((1, 1, 1), (3, 7, 5), (16, 300, 32), (4, 20_001, 8))


@dataclass(frozen=True)
class Problem:
    """A bank, a batch of unit features and their instances.

    Attributes:
        bank: float32 ``(n, d)``, unit rows.
        features: float32 ``(batch, d)``, unit rows.
        indices: int32 ``(batch,)``, distinct.
        rng: a generator for whatever else a test draws.
    """

    bank: np.ndarray
    features: np.ndarray
    indices: np.ndarray
    rng: np.random.Generator

    def negatives(self, *shape: int) -> np.ndarray:
        """Int32 instances of this shape, drawn uniformly."""
        return self.rng.integers(0, len(self.bank), shape).astype("int32")


def unit_rows(rng: np.random.Generator, rows: int, embedding_dim: int) -> np.ndarray:
    """Float32 random points of the unit sphere, ``(rows, embedding_dim)``.

    Example: ``instdisc_core.testing.strategies.unit_rows(np.random.default_rng(0), 4, 8)``
    """
    points = rng.standard_normal((rows, embedding_dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype("float32")


@st.composite
def problems(draw: st.DrawFn, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> Problem:
    """Problems of these shapes, some with features close to their own row."""
    batch, instances, embedding_dim = draw(st.sampled_from(shapes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bank = unit_rows(rng, instances, embedding_dim)
    features = unit_rows(rng, batch, embedding_dim)
    indices = rng.permutation(instances)[:batch].astype("int32")
    closeness = draw(st.sampled_from([0.0, 0.9, 1.0]))
    mixed = closeness * bank[indices] + (1 - closeness) * features[: len(indices)]
    norms = np.linalg.norm(mixed, axis=1, keepdims=True)
    features = np.where(norms > 0, mixed / np.where(norms > 0, norms, 1), features[: len(indices)])
    return Problem(bank, features.astype("float32"), indices, rng)


def temperatures(low: float = 0.01, high: float = 10.0) -> st.SearchStrategy[float]:
    """Temperatures between these limits, uniform in their logarithm."""
    return st.floats(np.log(low), np.log(high)).map(lambda t: float(np.exp(t)))
