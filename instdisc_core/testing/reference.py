"""The method in float64 NumPy, written from the equations and nothing else.

It is slow and literal on purpose. It imports nothing from the rest of the package and shares no
constant with it. All arrays are converted to float64.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def _f64(array: ArrayLike) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


def logsumexp(s: np.ndarray) -> np.ndarray:
    """``log sum exp`` over the last axis of a finite array."""
    largest = s.max(axis=-1)
    return largest + np.log(np.exp(s - largest[..., None]).sum(axis=-1))


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """``log(1 / (1 + exp(-x)))``."""
    return -np.logaddexp(0.0, -x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))``."""
    return np.exp(log_sigmoid(x))


def attend(
    features: ArrayLike, bank: ArrayLike, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """``log Z_i`` ``(B,)`` and ``sum_j p_ij v_j`` ``(B, d)``, from all ``B x n`` scores."""
    features, bank = _f64(features), _f64(bank)
    s = features @ bank.T / temperature
    log_z = logsumexp(s)
    return log_z, np.exp(s - log_z[:, None]) @ bank


def softmax(
    features: ArrayLike, indices: np.ndarray, bank: ArrayLike, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """The non-parametric softmax: losses ``(B,)`` and gradient ``(B, d)``."""
    features, bank = _f64(features), _f64(bank)
    log_z, expected = attend(features, bank, temperature)
    own = bank[indices]
    losses = log_z - (features * own).sum(axis=1) / temperature
    return losses, (expected - own) / temperature


def nce(
    features: ArrayLike,
    indices: np.ndarray,
    bank: ArrayLike,
    temperature: float,
    negatives: np.ndarray,
    log_z: ArrayLike,
    noise: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """NCE: losses ``(B,)`` and gradient ``(B, d)``.

    Args:
        negatives: ``(B, m)``.
        log_z: scalar or ``(B,)``.
        noise: probabilities ``P_n``, ``(n,)``; None is uniform.
    """
    features, bank = _f64(features), _f64(bank)
    noise = np.full(len(bank), 1 / len(bank)) if noise is None else _f64(noise)
    m = negatives.shape[1]
    log_z = np.broadcast_to(_f64(log_z), indices.shape)
    losses, gradient = np.zeros(len(indices)), np.zeros_like(features)
    for i, (f, own, others) in enumerate(zip(features, indices, negatives, strict=True)):
        rows = np.concatenate([[own], others])
        logits = bank[rows] @ f / temperature - log_z[i] - np.log(m * noise[rows])
        losses[i] = -log_sigmoid(logits[0]) - log_sigmoid(-logits[1:]).sum()
        weights = sigmoid(logits)
        weights[0] -= 1
        gradient[i] = weights @ bank[rows] / temperature
    return losses, gradient


def expected_nce(
    features: ArrayLike,
    indices: np.ndarray,
    bank: ArrayLike,
    temperature: float,
    log_z: ArrayLike,
    noise: ArrayLike,
    m: int,
) -> tuple[np.ndarray, np.ndarray]:
    """NCE averaged over the noise, a finite sum over all instances: losses and gradient."""
    features, bank, noise = _f64(features), _f64(bank), _f64(noise)
    logits = features @ bank.T / temperature - np.log(m * noise)
    logits -= np.broadcast_to(_f64(log_z), indices.shape)[:, None]
    own = logits[np.arange(len(indices)), indices]
    losses = -log_sigmoid(own) - m * (noise * log_sigmoid(-logits)).sum(axis=1)
    gradient = (sigmoid(own) - 1)[:, None] * bank[indices] + m * (noise * sigmoid(logits)) @ bank
    return losses, gradient / temperature


def info_nce(
    features: ArrayLike,
    indices: np.ndarray,
    bank: ArrayLike,
    temperature: float,
    negatives: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """InfoNCE over the positive and ``negatives`` ``(B, m)``: losses and gradient."""
    features, bank = _f64(features), _f64(bank)
    losses, gradient = np.zeros(len(indices)), np.zeros_like(features)
    for i, (f, own, others) in enumerate(zip(features, indices, negatives, strict=True)):
        rows = bank[np.concatenate([[own], others])]
        s = rows @ f / temperature
        p = np.exp(s - logsumexp(s))
        losses[i] = logsumexp(s) - s[0]
        gradient[i] = (p @ rows - rows[0]) / temperature
    return losses, gradient


def feature_decorrelation(
    features: ArrayLike, indices: np.ndarray, bank: ArrayLike, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """IDFD's decorrelation: the mean over columns, for each image, and the gradient of their sum.

    Column by column: ``log sum_m exp(u_l . u_m / t) - u_l . u_l / t`` with unit columns ``u``.
    """
    x = _f64(features)
    batch, dim = x.shape
    lengths = np.sqrt((x**2).sum(axis=0))
    u = x / lengths
    loss, gradient = 0.0, np.zeros_like(u)  # with respect to the unit columns
    for own in range(dim):
        s = np.array([u[:, own] @ u[:, m] for m in range(dim)]) / temperature
        p = np.exp(s - logsumexp(s))
        loss += (logsumexp(s) - s[own]) / dim
        for m in range(dim):
            c = (p[m] - (own == m)) / (dim * temperature)
            gradient[:, own] += c * u[:, m]
            gradient[:, m] += c * u[:, own]
    gradient = (gradient - u * (u * gradient).sum(axis=0)) / lengths
    return np.full(batch, loss), batch * gradient


def in_batch_softmax(
    targets: ArrayLike, predictions: ArrayLike, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Each target against all predictions: losses ``(B,)``, gradient of their sum ``(B, d)``."""
    targets, predictions = _f64(targets), _f64(predictions)
    batch = len(targets)
    losses, gradient = np.zeros(batch), np.zeros_like(predictions)
    for i, target in enumerate(targets):
        t = target / np.sqrt(target @ target)
        lengths = np.sqrt((predictions**2).sum(axis=1))
        s = np.array([t @ p / length for p, length in zip(predictions, lengths, strict=True)])
        s /= temperature
        p = np.exp(s - logsumexp(s))
        losses[i] = logsumexp(s) - s[i]
        for j in range(batch):
            unit = predictions[j] / lengths[j]
            tangent = (t - (t @ unit) * unit) / lengths[j]  # of t . p_j / |p_j|
            gradient[j] += (p[j] - (i == j)) * tangent / temperature
    return losses, gradient


def proximal(
    features: ArrayLike, indices: np.ndarray, bank: ArrayLike, weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """``weight * |f_i - v_i|^2``: values and gradient."""
    step = _f64(features) - _f64(bank)[indices]
    return weight * (step**2).sum(axis=1), 2 * weight * step


def sampled_log_z(
    features: ArrayLike,
    negatives: np.ndarray,
    bank: ArrayLike,
    temperature: float,
    noise: ArrayLike,
) -> float:
    """``log mean_ik exp(s_ij_k) / P_n(j_k)``, one number for the batch."""
    features, bank, noise = _f64(features), _f64(bank), _f64(noise)
    s = np.einsum("bd,bkd->bk", features, bank[negatives]) / temperature
    return float(np.log(np.mean(np.exp(s) / noise[negatives])))


def update(bank: ArrayLike, indices: ArrayLike, features: ArrayLike, momentum: float) -> np.ndarray:
    """The bank after one update, as a new array; a loop over the images."""
    bank, features = _f64(bank).copy(), _f64(features)
    for i in set(np.asarray(indices).tolist()):
        mean = features[np.asarray(indices) == i].mean(axis=0)
        mixed = momentum * bank[i] + (1 - momentum) * mean
        bank[i] = mixed / np.sqrt((mixed**2).sum())
    return bank


def weighted_knn(
    features: ArrayLike,
    train_features: ArrayLike,
    train_labels: np.ndarray,
    k: int,
    temperature: float,
) -> np.ndarray:
    """The label of each query, by a vote of its ``k`` nearest; ties go to the smaller label."""
    features, train_features = _f64(features), _f64(train_features)
    labels = []
    for f in features:
        cosines = train_features @ f
        votes: dict[Any, float] = {}
        for j in np.argsort(-cosines, kind="stable")[:k]:
            label = train_labels[j]
            votes[label] = votes.get(label, 0.0) + np.exp(cosines[j] / temperature)
        labels.append(max(sorted(votes), key=lambda label: votes[label]))
    return np.asarray(labels)


def sgd(
    weights: ArrayLike,
    momentum_rows: ArrayLike,
    gradient: ArrayLike,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> tuple[np.ndarray, np.ndarray]:
    """A dense step of SGD, as PyTorch defines it: the weights after it, and their momentum."""
    w, u = _f64(weights), _f64(momentum_rows)
    u = momentum * u + _f64(gradient) + weight_decay * w
    return w - learning_rate * u, u


def cosine_softmax(
    features: ArrayLike, weights: ArrayLike, targets: np.ndarray, temperature: float
) -> np.ndarray:
    """Losses ``(B,)`` of a softmax over the cosines of features to weights, of any lengths."""
    f, w = _f64(features), _f64(weights)
    f, w = (x / np.sqrt((x**2).sum(axis=1, keepdims=True)) for x in (f, w))
    s = f @ w.T / temperature
    return logsumexp(s) - s[np.arange(len(f)), targets]
