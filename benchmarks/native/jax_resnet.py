"""The residual network in Flax, with Optax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from benchmarks import native


class ResNet(nn.Module):
    """Images ``(batch, height, width, 3)`` to pooled features, computed in ``dtype``."""

    depth: int
    stem: str
    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images):
        """Features ``(batch, channels)`` in training."""
        first, blocks = native.plan(self.depth, self.stem, self.width)
        x = nn.relu(self.normalized(images, *first))
        for main, shortcut in blocks:
            y = nn.relu(self.normalized(x, *main[0]))
            y = self.normalized(y, *main[1])
            if shortcut:
                x = self.normalized(x, *shortcut)
            x = nn.relu(x + y)
        return x.mean((1, 2), dtype=jnp.float32)

    def normalized(self, x, filters, size, stride):
        """A convolution and its batch normalization."""
        margin = size // 2 if size % 2 else 0
        padding = "SAME" if stride == 1 else margin
        x = nn.Conv(filters, (size, size), stride, padding, use_bias=False, dtype=self.dtype)(x)
        return nn.BatchNorm(
            use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=self.dtype
        )(x)


def step(net, encoder, images, targets):
    """A function that trains the network once by SGD on the squared error, and returns the loss.

    The network starts from the weights of a Keras encoder of the same plan.
    """
    x, y = jnp.asarray(images), jnp.asarray(targets)
    params, stats = {}, {}
    for i, (convolution, normalization) in enumerate(native.layers_in_order(encoder)):
        scale, bias, mean, var = (jnp.array(v.value) for v in normalization.weights)
        params[f"Conv_{i}"] = {"kernel": jnp.array(convolution.kernel.value)}
        params[f"BatchNorm_{i}"] = {"scale": scale, "bias": bias}
        stats[f"BatchNorm_{i}"] = {"mean": mean, "var": var}
    optimizer = optax.sgd(0.03, momentum=0.9)

    def loss_of(params, stats, x, y):
        variables = {"params": params, "batch_stats": stats}
        features, moved = net.apply(variables, x, mutable=["batch_stats"])
        return jnp.mean(jnp.square(features - y)), moved["batch_stats"]

    def train(state, x, y):
        params, stats, velocity = state
        (loss, stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, stats, x, y)
        updates, velocity = optimizer.update(gradient, velocity)
        return loss, (optax.apply_updates(params, updates), stats, velocity)

    train = jax.jit(train, donate_argnums=0)
    state = [params, stats, optimizer.init(params)]

    def run():
        nonlocal state
        loss, state = train(state, x, y)
        return float(loss)

    return run
