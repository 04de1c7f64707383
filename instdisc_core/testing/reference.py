"""The method in float64 NumPy, written from the equations and nothing else.

Slow and literal on purpose. It imports nothing from the rest of the package and shares no constant
with it. All arrays are converted to float64.
"""

import numpy as np


def _f64(*arrays):
    converted = [np.asarray(array, dtype=np.float64) for array in arrays]
    return converted[0] if len(converted) == 1 else converted


def logsumexp(s):
    """``log sum exp`` over the last axis of a finite array."""
    largest = s.max(axis=-1)
    return largest + np.log(np.exp(s - largest[..., None]).sum(axis=-1))


def log_sigmoid(x):
    """``log(1 / (1 + exp(-x)))``."""
    return -np.logaddexp(0.0, -x)


def sigmoid(x):
    """``1 / (1 + exp(-x))``."""
    return np.exp(log_sigmoid(x))


def attend(features, bank, temperature):
    """``log Z_i`` ``(B,)`` and ``sum_j p_ij v_j`` ``(B, d)``, by the ``B x n`` scores."""
    features, bank = _f64(features, bank)
    s = features @ bank.T / temperature
    log_z = logsumexp(s)
    return log_z, np.exp(s - log_z[:, None]) @ bank


def softmax(features, indices, bank, temperature):
    """The non-parametric softmax: losses ``(B,)`` and gradient ``(B, d)``."""
    features, bank = _f64(features, bank)
    log_z, expected = attend(features, bank, temperature)
    own = bank[indices]
    losses = log_z - (features * own).sum(axis=1) / temperature
    return losses, (expected - own) / temperature


def nce(features, indices, negatives, bank, temperature, log_z, noise):
    """NCE: losses ``(B,)`` and gradient ``(B, d)``.

    Args:
        negatives: ``(B, m)``.
        log_z: scalar or ``(B,)``.
        noise: probabilities ``P_n``, ``(n,)``.
    """
    features, bank, noise = _f64(features, bank, noise)
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


def expected_nce(features, indices, bank, temperature, log_z, noise, m):
    """NCE averaged over the noise, a finite sum over all instances: losses and gradient."""
    features, bank, noise = _f64(features, bank, noise)
    logits = features @ bank.T / temperature - np.log(m * noise)
    logits -= np.broadcast_to(_f64(log_z), indices.shape)[:, None]
    own = logits[np.arange(len(indices)), indices]
    losses = -log_sigmoid(own) - m * (noise * log_sigmoid(-logits)).sum(axis=1)
    gradient = (sigmoid(own) - 1)[:, None] * bank[indices] + m * (noise * sigmoid(logits)) @ bank
    return losses, gradient / temperature


def info_nce(features, indices, negatives, bank, temperature):
    """InfoNCE over the positive and ``negatives`` ``(B, m)``: losses and gradient."""
    features, bank = _f64(features, bank)
    losses, gradient = np.zeros(len(indices)), np.zeros_like(features)
    for i, (f, own, others) in enumerate(zip(features, indices, negatives, strict=True)):
        rows = bank[np.concatenate([[own], others])]
        s = rows @ f / temperature
        p = np.exp(s - logsumexp(s))
        losses[i] = logsumexp(s) - s[0]
        gradient[i] = (p @ rows - rows[0]) / temperature
    return losses, gradient


def proximal(features, indices, bank, weight):
    """``weight * |f_i - v_i|^2``: values and gradient."""
    step = _f64(features) - _f64(bank)[indices]
    return weight * (step**2).sum(axis=1), 2 * weight * step


def sampled_log_z(features, negatives, bank, temperature, noise):
    """``log mean_ik exp(s_ij_k) / P_n(j_k)``, one number for the batch."""
    features, bank, noise = _f64(features, bank, noise)
    s = np.einsum("bd,bkd->bk", features, bank[negatives]) / temperature
    return np.log(np.mean(np.exp(s) / noise[negatives]))


def update(bank, indices, features, momentum):
    """The bank after one update, a new array: one image at a time, by a loop."""
    bank, features = _f64(bank).copy(), _f64(features)
    for i in set(np.asarray(indices).tolist()):
        mean = features[np.asarray(indices) == i].mean(axis=0)
        mixed = momentum * bank[i] + (1 - momentum) * mean
        bank[i] = mixed / np.sqrt((mixed**2).sum())
    return bank


def weighted_knn(features, train_features, train_labels, k, temperature):
    """The label of each query, by a vote of its ``k`` nearest; ties go to the smaller label."""
    features, train_features = _f64(features, train_features)
    labels = []
    for f in features:
        cosines = train_features @ f
        votes: dict = {}
        for j in np.argsort(-cosines, kind="stable")[:k]:
            label = train_labels[j]
            votes[label] = votes.get(label, 0.0) + np.exp(cosines[j] / temperature)
        labels.append(max(sorted(votes), key=lambda label: votes[label]))
    return np.asarray(labels)
