"""Random batches of instances and of their features."""

import numpy as np

from instdisc_core.testing import strategies


def instances(rng: np.random.Generator, num_instances: int, batch_size: int) -> np.ndarray:
    """Distinct instance indices, int32 ``(batch_size,)``."""
    return rng.permutation(num_instances)[:batch_size].astype("int32")


def features_near(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """Unit features, float32 ``(batch, d)``, each half way from a random point to its row."""
    mixed = rows + strategies.unit_rows(rng, *rows.shape)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype("float32")
