"""Gradients: in the active framework's own way, and of a NumPy function by differences."""

import keras
import numpy as np


def losses_and_gradient(objective, features, indices, bank, **kwargs):
    """NumPy losses ``(B,)`` and gradient ``(B, d)`` of their sum, in float64."""
    variables = [*objective.variables, *bank.variables]
    return differentiated(lambda f: objective(f, indices, bank, **kwargs), features, variables)


def differentiated(function, features, variables=()):
    """NumPy values ``(B,)`` of a function, and the gradient ``(B, d)`` of their sum, in float64."""
    features = keras.ops.convert_to_tensor(features)
    losses, gradient = _BACKENDS[keras.backend.backend()](function, features, variables)
    to_numpy = keras.ops.convert_to_numpy
    return to_numpy(losses).astype("float64"), to_numpy(gradient).astype("float64")


def by_differences(function, array, step=1e-5):
    """The gradient of a float64 function of an array."""
    gradient = np.zeros(array.shape)
    for where in np.ndindex(*array.shape):
        change = np.zeros(array.shape)
        change[where] = step
        gradient[where] = (function(array + change) - function(array - change)) / (2 * step)
    return gradient


def _torch(function, features, variables):
    features = features.detach().clone().requires_grad_()
    losses = function(features)
    losses.sum().backward()
    return losses, features.grad


def _tensorflow(function, features, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(features)
        losses = function(features)
    return losses, tape.gradient(losses, features)


def _jax(function, features, variables):
    import jax

    def total(f):
        with keras.StatelessScope([(v, v.value) for v in variables]) as scope:
            losses = function(f)
        return losses.sum(), (losses, [scope.get_current_value(v) for v in variables])

    gradient, (losses, values) = jax.grad(total, has_aux=True)(features)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return losses, gradient


_BACKENDS = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}


def numpy(tensor):
    """A float64 NumPy array of a tensor or variable."""
    return np.asarray(
        keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")), dtype="float64"
    )
