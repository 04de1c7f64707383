"""A softmax over cosines to trained weights, with the gradients of both sides in closed form."""

import math
from typing import NamedTuple

from einops import einsum
from keras import ops

from instdisc_core.gradients import attach_gradient, stopped
from instdisc_core.normalization import unit
from instdisc_core.types import Tensor
from instdisc_core.validation import (
    check_features,
    check_indices,
    require,
    require_temperature,
)


class CosineSoftmax(NamedTuple):
    """The losses of a batch, and what they say about the weights.

    Attributes:
        losses: float32 ``(batch,)``, in nats; differentiable in the features alone.
        weight_gradient: float32 ``(classes, embedding_dim)``, of the sum of all losses, each times
            its share, with respect to the weights.
    """

    losses: Tensor
    weight_gradient: Tensor


def cosine_softmax(
    features: Tensor,
    weights: Tensor,
    targets: Tensor,
    temperature: float = 0.2,
    counted: Tensor | None = None,
    shares: Tensor | None = None,
) -> CosineSoftmax:
    """The cross-entropy of classifying embeddings by their cosine to the weights of each class.

    With unit embeddings ``f_i`` of class ``t_i``, and ``v_j = w_j / |w_j|``:

        s_ij = v_j . f_i / temperature
        L_i  = log sum_j exp s_ij - s_it

    With ``p_i = softmax(s_i)``, and ``e_ij`` 1 for ``j = t_i`` and 0 else, the gradients are

        dL_i / df_i = sum_j (p_ij - e_ij) v_j / temperature
        dL / dw_j   = (1 - v_j v_j^T) sum_i share_i (p_ij - e_ij) f_i / (temperature |w_j|)

    Args:
        features: floats ``(batch, embedding_dim)``, unit rows, differentiated through.
        weights: floats ``(classes, embedding_dim)``; rows of any length.
        targets: integers ``(batch,)`` in ``[0, classes)``.
        temperature: at least 1e-6.
        counted: boolean ``(classes,)``, which classes there are; None is all. At least one, and
            those of all images with a share.
        shares: floats ``(batch,)``, the factor of each loss in the sum; None is ``1 / batch``.

    Returns:
        A CosineSoftmax.

    Raises:
        ValueError: arrays whose shapes do not fit, or too low a temperature; where the values are
            in the host's memory, also targets out of range and rows of zeros. Features of another
            length than 1 are a warning there.

    Source:
        Cao et al., NeurIPS 2020 (PIC), section 2.

    Example: ``losses, gradient = objectives.cosine_softmax(features, embeddings, indices)``
    """
    require_temperature(temperature)
    features, w = ops.convert_to_tensor(features, "float32"), stopped(weights)
    counted = None if counted is None else ops.convert_to_tensor(counted, "bool")
    shares = None if shares is None else stopped(shares)
    require(
        len(features.shape) == len(w.shape) == 2 and features.shape[1] == w.shape[1],
        f"features of shape {tuple(features.shape)} and weights of shape {tuple(w.shape)}",
        "shapes (batch, embedding_dim) and (classes, embedding_dim)",
    )
    of_images, of_classes = features.shape[0], w.shape[0]
    check_features(features, w.shape[1], unit=True)
    targets = ops.cast(check_indices(targets, of_classes, name="targets", of="images"), "int32")
    for name, array, size, each in (
        ("targets", targets, of_images, "image"),
        ("counted", counted, of_classes, "class"),
        ("shares", shares, of_images, "image"),
    ):
        shape = None if array is None else tuple(array.shape)
        require(
            shape is None or (len(shape) == 1 and (shape[0] == size or None in (shape[0], size))),
            f"{name} of shape {shape}",
            f"shape ({size},), one for each {each}",
        )
    f, v = ops.stop_gradient(features), unit(w)
    batch, classes = ops.shape(f)[0], ops.shape(w)[0]
    s = einsum(f, v, "image dim, row dim -> image row") / temperature
    if counted is not None:
        s = ops.where(counted, s, -math.inf)
    log_z = ops.logsumexp(s, axis=1)
    p = ops.exp(s - log_z[:, None])
    own = ops.take(v, targets, axis=0)
    losses = log_z - ops.sum(own * f, axis=1) / temperature
    gradient = (ops.matmul(p, v) - own) / temperature

    shares = ops.ones_like(losses) / batch if shares is None else shares
    f = shares[:, None] * f / temperature
    of_v = ops.matmul(ops.transpose(p), f) - ops.segment_sum(f, targets, num_segments=classes)
    across = of_v - ops.sum(of_v * v, axis=1, keepdims=True) * v
    length = ops.sqrt(ops.sum(ops.square(w), axis=1, keepdims=True))
    weight_gradient = ops.where(length > 0, across / ops.where(length > 0, length, 1.0), 0.0)
    return CosineSoftmax(attach_gradient(losses, features, gradient), weight_gradient)
