"""Gradients that do not flow, and gradients that were computed in closed form."""

from keras import ops

from instdisc_core.types import Tensor


def attach_gradient(value: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
    """The loss of each image, with this value and this gradient with respect to ``features``.

    The result equals ``value``. Its derivative with respect to ``features`` is ``gradient`` on
    every framework:

        value + <features, gradient> - stop_gradient(<features, gradient>)

    The operations that produced ``value`` and ``gradient`` are not differentiated. So a backend may
    compute them with any kernel, and may overwrite the memory bank before the backward pass.

    Args:
        value: float tensor ``(batch,)``, for example losses in nats.
        features: float tensor ``(batch, embedding_dim)``; the only differentiated argument.
        gradient: float tensor ``(batch, embedding_dim)``, the derivative of each ``value`` with
            respect to its own row of ``features``.

    Returns:
        Float tensor ``(batch,)``.

    Example:
    ```python
    f = keras.ops.ones((2, 3))
    losses = attach_gradient(keras.ops.zeros(2), f, 5 * f)  # value 0, gradient 5
    ```
    """
    inner = ops.sum(features * ops.stop_gradient(gradient), axis=-1)
    return ops.stop_gradient(value) + (inner - ops.stop_gradient(inner))


def stopped(array: Tensor) -> Tensor:
    """A float32 tensor through which no gradient flows."""
    return ops.cast(ops.stop_gradient(ops.convert_to_tensor(array)), "float32")


def false_after(array: Tensor) -> Tensor:
    """False, boolean ``()``, but not known before a float array: what depends on it comes after."""
    return ops.any(ops.logical_and(ops.isnan(array), ops.isfinite(array)))
