"""Joining a loss to a gradient that was computed in closed form."""

from keras import ops

from instdisc_core.types import Tensor


def attach_gradient(value: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
    """A per-image loss with this value and, with respect to ``features``, this gradient.

    The result equals ``value``; differentiating it with respect to ``features`` gives
    ``gradient``, whatever framework does the differentiating:

        value + <features, gradient> - stop_gradient(<features, gradient>)

    No operation that produced ``value`` or ``gradient`` needs a derivative of its own, so a
    backend may compute them with any kernel, and may overwrite the memory bank before the backward
    pass.

    Args:
        value: float tensor ``(batch,)``, for example losses in nats.
        features: float tensor ``(batch, embedding_dim)``; the only thing differentiated.
        gradient: float tensor ``(batch, embedding_dim)``, the derivative of each ``value`` with
            respect to its own row of ``features``.

    Returns:
        Float tensor ``(batch,)``.

    Example:
    ```python
    f = keras.ops.ones((2, 3))
    losses = attach_gradient(keras.ops.zeros(2), f, 5 * f)   # value 0, gradient 5
    ```
    """
    inner = ops.sum(features * ops.stop_gradient(gradient), axis=-1)
    return ops.stop_gradient(value) + (inner - ops.stop_gradient(inner))
