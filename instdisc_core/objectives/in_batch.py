"""A softmax over the images of a batch, for methods that compare two views."""

import math

from einops import einsum
from keras import ops

from instdisc_core.normalization import unit
from instdisc_core.sums import share
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
    s, counted = _cosines(targets, predictions, counted)
    s = s / temperature
    losses = ops.logsumexp(s, axis=1) - ops.diagonal(s)
    return losses if counted is None else ops.where(counted, losses, math.nan)


def in_batch_accuracy(
    targets: Tensor, predictions: Tensor, counted: Tensor | None = None
) -> Tensor:
    """The share of images whose target is most similar to their own prediction.

    Args:
        targets, predictions, counted: see ``in_batch_softmax``.

    Returns:
        Float32 tensor ``()`` in ``[0, 1]``; 0 if no image counts.

    Raises:
        ValueError: arrays that do not have one shape.

    Example: ``in_batch_accuracy(embeddings[:8], features[:8])  # 1: they are equal``
    """
    s, counted = _cosines(targets, predictions, counted)
    batch = ops.shape(s)[0]
    right = ops.cast(ops.argmax(s, axis=1), "int32") == ops.arange(batch, dtype="int32")
    return share(right, counted)


def _cosines(
    targets: Tensor, predictions: Tensor, counted: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """``t_i . p_j``, or ``-inf`` where another image ``j`` does not count; and who counts."""
    targets = ops.convert_to_tensor(targets, "float32")
    predictions = ops.convert_to_tensor(predictions, "float32")
    shapes = tuple(targets.shape), tuple(predictions.shape)
    require(
        len(shapes[0]) == 2 and shapes[0] == shapes[1],
        f"targets of shape {shapes[0]} and predictions of shape {shapes[1]}",
        "one shape (batch, embedding_dim), a target and a prediction for each image",
    )
    if counted is not None:  # a gradient of 0 times a value that is not finite would be NaN
        counted = ops.convert_to_tensor(counted)
        targets, predictions = (
            ops.where(counted[:, None], rows, 0.0) for rows in (targets, predictions)
        )
    t, p = unit(ops.stop_gradient(targets)), unit(predictions)
    s = einsum(t, p, "target dim, prediction dim -> target prediction")
    if counted is None:
        return s, None
    candidates = ops.logical_or(counted[None, :], ops.eye(ops.shape(s)[0], dtype="bool"))
    return ops.where(candidates, s, -math.inf), counted
