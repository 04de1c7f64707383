"""A position on a map for every image: t-SNE of some, the others next to those like them."""

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.evaluation.tsne import tsne

BLOCK = 4096  # rows at a time
NEAREST = 3  # images with a position by t-SNE, between which another one is put
SHARPNESS = 20.0  # of their weights exp(SHARPNESS * cosine)
JITTER = 0.004  # of the extent of the map, so that copies do not cover each other


def layout(embeddings: ArrayLike, num_images: int = 3000, seed: int = 0) -> np.ndarray:
    """Where a map shows each image, so that images that are alike are near each other.

    t-SNE places ``num_images`` of them, because its time grows with their number. Each other image
    is put at the mean of the three most similar ones of these, weighted by ``exp(20 cosine)``, and
    moved a little at random.

    Args:
        embeddings: unit rows ``(n, embedding_dim)``.
        num_images: how many t-SNE places, chosen at random; at least 4.
        seed: of the choice, of t-SNE and of the moves.

    Returns:
        Positions ``(n, 2)``, float32.

    Raises:
        ValueError: as ``plot_tsne``.

    Example:
    ```python
    from instdisc_core.evaluation import layout

    positions = layout(embeddings, num_images=20)
    ```
    """
    rows = np.asarray(embeddings, "float32")
    placed = tsne(rows, num_images, seed)
    positions = np.empty((len(rows), 2), "float32")
    positions[placed.indices] = placed.positions
    others = np.setdiff1d(np.arange(len(rows)), placed.indices)
    rng = np.random.default_rng(seed)
    step = JITTER * np.ptp(placed.positions)
    for start in range(0, len(others), BLOCK):
        block = others[start : start + BLOCK]
        cosines = rows[block] @ rows[placed.indices].T
        near = np.argpartition(-cosines, NEAREST - 1, axis=1)[:, :NEAREST]
        best = np.take_along_axis(cosines, near, axis=1)
        weights = np.exp(SHARPNESS * (best - best.max(axis=1, keepdims=True)))[..., None]
        means = (weights * placed.positions[near]).sum(axis=1) / weights.sum(axis=1)
        positions[block] = means + rng.normal(0, step, means.shape)
    return positions
