"""What the benchmarks need from each framework: compile, differentiate, wait, name the device."""

import keras

BACKEND = keras.backend.backend()

if BACKEND == "torch":
    import torch
elif BACKEND == "tensorflow":
    import tensorflow as tf
else:
    import jax


def wait(result):
    """Return when the result has been computed."""
    if BACKEND == "jax":
        jax.block_until_ready(result)
    elif BACKEND == "torch" and torch.cuda.is_available():
        torch.cuda.synchronize()
    elif BACKEND == "tensorflow":
        tf.test.experimental.sync_devices()
    return result


def compiled(function):
    """The function as a user of this framework would run it: compiled, but for PyTorch."""
    if BACKEND == "tensorflow":
        return tf.function(function)
    return jax.jit(function) if BACKEND == "jax" else function


def losses_and_gradient(losses_of, state):
    """Losses, and the gradient of their sum by the framework's own differentiation.

    Args:
        losses_of: function of features and indices that returns one loss for each.
        state: the variables that it reads and moves. JAX gets them as arguments; otherwise it would
            compile the whole bank into the program.

    Returns:
        A function of features and indices that returns losses and gradient.
    """
    if BACKEND == "torch":

        def run(features, indices):
            features = features.detach().requires_grad_()
            losses = losses_of(features, indices)
            (gradient,) = torch.autograd.grad(losses.sum(), features)
            return losses.detach(), gradient

        return run
    if BACKEND == "tensorflow":

        @tf.function
        def run(features, indices):
            with tf.GradientTape() as tape:
                tape.watch(features)
                losses = losses_of(features, indices)
            return losses, tape.gradient(losses, features)

        return run
    small = [variable for variable in state if len(variable.shape) < 2]  # the bank stays

    @jax.jit
    def stateless(values, features, indices):
        def total(features):
            with keras.StatelessScope(zip(state, values, strict=True)) as scope:
                losses = losses_of(features, indices)
            return losses.sum(), (losses, [scope.get_current_value(v) for v in small])

        gradient, (losses, moved) = jax.grad(total, has_aux=True)(features)
        return losses, gradient, moved

    def run(features, indices):
        losses, gradient, moved = stateless([v.value for v in state], features, indices)
        for variable, value in zip(small, moved, strict=True):
            variable.assign(value)
        return losses, gradient

    return run


def device():
    """The device's name as the framework gives it."""
    if BACKEND == "torch":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if BACKEND == "jax":
        return jax.devices()[0].device_kind
    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def on_accelerator():
    """Whether the framework runs on a GPU here."""
    return device() != "cpu"


def peak_accelerator_bytes(run):
    """The peak memory of a run on the GPU, in bytes beyond what was in use before."""
    if BACKEND == "torch":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        wait(run())
        return torch.cuda.max_memory_allocated() - before
    if BACKEND == "tensorflow":
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        wait(run())
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before
    wait(run())
    counts = jax.devices()[0].memory_stats()  # its peak is the process's
    return counts["peak_bytes_in_use"] - counts["bytes_in_use"]
