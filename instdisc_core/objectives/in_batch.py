"""A softmax over the images of a batch, for methods that compare two views."""

import math

from einops import einsum
from keras import ops

from instdisc_core.normalization import unit
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_temperature


def in_batch_softmax(
    targets: Tensor,
    predictions: Tensor,
    temperature: float = 0.1,
    counted: Tensor | None = None,
) -> Tensor:
    """The cross-entropy of recognizing each image's prediction among those of the batch.

    With unit rows ``t_i`` of the targets, which are constants, and ``p_j`` of the predictions:

        s_ij = t_i . p_j / temperature
        L_i  = log sum_j exp s_ij - s_ii

    The negatives of an image are the predictions of the other images, and nothing else: targets are
    not compared with targets, nor predictions with predictions. In NNCLR the target is the nearest
    neighbor of one view, and the prediction is made from the other view.

    Args:
        targets: floats ``(batch, d)``; rows of any length. No gradient flows through them.
        predictions: floats ``(batch, d)``; rows of any length, differentiated through.
        temperature: ``tau``, at least 1e-6.
        counted: boolean ``(batch,)``, which images count; None is all. Another gets the loss NaN
            and the gradient 0, and is no negative.

    Returns:
        Float32 tensor ``(batch,)``, in nats. In a batch of one image the loss is 0.

    Raises:
        ValueError: arrays that do not have one shape, or too low a temperature.

    Source:
        Dwibedi et al., ICCV 2021 (NNCLR), section 3.2 and algorithm 1.

    Example: ``losses = in_batch_softmax(embeddings[:8], features[:8], temperature=0.1)``
    """
    require_temperature(temperature)
    targets, predictions = (
        ops.convert_to_tensor(rows, "float32") for rows in (targets, predictions)
    )
    require(
        len(targets.shape) == 2 and tuple(targets.shape) == tuple(predictions.shape),
        f"targets of shape {tuple(targets.shape)} and predictions of shape "
        f"{tuple(predictions.shape)}",
        "one shape (batch, embedding_dim), a target and a prediction for each image",
    )
    t, p = unit(ops.stop_gradient(targets)), unit(predictions)
    s = einsum(t, p, "target dim, prediction dim -> target prediction") / temperature
    own = ops.diagonal(s)
    if counted is None:
        return ops.logsumexp(s, axis=1) - own
    counted = ops.convert_to_tensor(counted)
    compared = ops.logical_or(counted[None, :], ops.eye(ops.shape(s)[0], dtype="bool"))
    losses = ops.logsumexp(ops.where(compared, s, -math.inf), axis=1) - own
    return ops.where(counted, losses, math.nan)
