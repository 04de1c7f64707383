"""Measures of an embedding that need no labels, and the detection of a collapse."""

from typing import Literal, TypeAlias

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.memory_bank import MemoryBank
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_finite

BLOCK = 8_192  # rows of the bank that are scored at a time
ALIKE = 0.95  # mean cosine of two images above which all embeddings count as equal
ENOUGH = 8  # dimensions below which a small rank is no sign of a collapse
FLAT = 0.02  # effective rank, as a share of the dimensions, below which it is one

Collapse: TypeAlias = Literal[
    "all embeddings are alike",
    "the embeddings vary in few dimensions",
    "embeddings are not finite",
]


def uniformity(embeddings: Tensor) -> float:
    """``log mean exp(-2 |f_i - f_j|^2)`` over all pairs, in nats: 0 if all are equal, else below 0.

    Args:
        embeddings: unit rows ``f``, ``(n, embedding_dim)``, at least 2.

    Raises:
        ValueError: fewer than 2 embeddings, or some that are not finite.

    Source:
        Wang and Isola, ICML 2020, with ``t = 2``.

    Example: ``uniformity(model.predict(images[:512]))``
    """
    f = ops.convert_to_numpy(embeddings).astype("float64")
    require(len(f) > 1, f"{len(f)} embeddings", "at least 2")
    require_finite("embeddings", f)
    squares = 2 - 2 * (f @ f.T)
    pairs = squares[np.triu_indices(len(f), 1)]
    return float(np.log(np.mean(np.exp(-2 * pairs))))


def alignment(embeddings: Tensor, others: Tensor) -> float:
    """``mean |f_i - g_i|^2`` of two embeddings of the same images: 0 if equal, 2 if unrelated.

    Args:
        embeddings, others: unit rows ``f`` and ``g``, ``(n, embedding_dim)``, of the same images,
            for example of two augmentations.

    Raises:
        ValueError: different shapes, or embeddings that are not finite.

    Source:
        Wang and Isola, ICML 2020, with ``alpha = 2``.

    Example: ``alignment(model.predict(images), model.predict(images[:, :, ::-1]))``
    """
    f, g = (ops.convert_to_numpy(rows).astype("float64") for rows in (embeddings, others))
    require(f.shape == g.shape, f"shapes {f.shape} and {g.shape}", "one shape")
    require_finite("embeddings", f)
    require_finite("others", g)
    return float(np.mean(np.sum(np.square(f - g), axis=1)))


def effective_rank(embeddings: Tensor) -> float:
    """How many dimensions the embeddings use: the exponential of the entropy of the spectrum.

    Args:
        embeddings: rows ``(n, embedding_dim)``.

    Returns:
        A float from 1 to ``min(n, embedding_dim)``: ``exp(-sum_i p_i log p_i)`` with ``p`` the
        singular values of the rows divided by their sum.

    Raises:
        ValueError: embeddings that are not finite.

    Source:
        Roy and Vetterli, EUSIPCO 2007.

    Example: ``effective_rank(model.memory_bank.lookup(indices))``
    """
    f = ops.convert_to_numpy(embeddings).astype("float64")
    require_finite("embeddings", f)
    singular = np.linalg.svd(f, compute_uv=False)
    p = singular / singular.sum()
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def positive_ranks(embeddings: Tensor, indices: ArrayLike, bank: MemoryBank) -> np.ndarray:
    """The rank of each image's own row among all rows, by similarity: 1 is the most similar.

    Args:
        embeddings: unit rows ``(batch, embedding_dim)``.
        indices: the instance index of each embedding, ``(batch,)``.
        bank: the MemoryBank.

    Returns:
        Integers ``(batch,)`` from 1 to ``n``.

    Raises:
        ValueError: embeddings that are not finite.

    Example: ``np.median(positive_ranks(model.predict(images), indices, model.memory_bank))``
    """
    f = ops.convert_to_tensor(embeddings, "float32")
    require_finite("embeddings", ops.convert_to_numpy(f))
    own = np.asarray(indices, "int32")[:, None]
    score = ops.convert_to_numpy(bank.scores(f, ops.convert_to_tensor(own)))
    ranks = np.ones(len(own), "int64")
    for start in range(0, bank.num_instances, BLOCK):
        block = np.arange(start, min(start + BLOCK, bank.num_instances), dtype="int32")
        scores = ops.convert_to_numpy(bank.scores(f, ops.convert_to_tensor(block)))
        ranks += np.sum((scores > score) & (block != own), axis=1)
    return ranks


def neighbor_agreement(neighbors: ArrayLike, others: ArrayLike) -> float:
    """The share of neighbors that two lists have in common, the mean over images, in ``[0, 1]``.

    Args:
        neighbors, others: indices ``(n, k)``, different ones in each row.

    Raises:
        ValueError: lists of different length.

    Example: ``neighbor_agreement([[1, 2], [3, 4]], [[2, 1], [3, 5]])  # 0.75``
    """
    neighbors, others = np.asarray(neighbors), np.asarray(others)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(neighbors, others, strict=True)]
    return float(np.mean(shared) / neighbors.shape[1])


def detect_collapse(embeddings: Tensor) -> Collapse | None:
    """What kind of collapse the embeddings show, or None.

    Args:
        embeddings: unit rows ``(n, embedding_dim)``, at least 2.

    Returns:
        ``"embeddings are not finite"``; ``"all embeddings are alike"`` where the mean cosine of two
        images is above 0.95; ``"the embeddings vary in few dimensions"`` where the effective rank,
        with the mean subtracted, is below 2, or below 2 % of the largest possible rank (if that is
        at least 8); else None.

    Raises:
        ValueError: fewer than 2 embeddings.

    Source:
        The thresholds are this project's: random and trained embeddings are far from them.

    Example: ``assert detect_collapse(embeddings) is None``
    """
    f = ops.convert_to_numpy(embeddings).astype("float64")
    if not np.all(np.isfinite(f)):
        return "embeddings are not finite"
    n = len(f)
    require(n > 1, f"{n} embeddings", "at least 2")
    cosine = (np.sum(np.square(f.sum(axis=0))) - n) / (n * (n - 1))
    if cosine > ALIKE:
        return "all embeddings are alike"
    possible = min(n - 1, f.shape[1])
    if possible >= ENOUGH and effective_rank(f - f.mean(axis=0)) < max(2.0, FLAT * possible):
        return "the embeddings vary in few dimensions"
    return None
