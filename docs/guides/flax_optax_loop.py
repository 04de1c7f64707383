"""
Title: Your own loop with Flax and Optax
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: A memory bank in a pure, compiled step, next to a Flax module and an Optax optimizer.
Accelerator: GPU, or none for small images
"""

"""
A JAX step takes its state as an argument and returns it. Memory bank and objective are Keras
layers, whose variables hold their state. `keras.StatelessScope` makes a pure function of them:
inside it, reading a variable gives the value that was passed in, and assigning to one is noted down
instead of done.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before anything imports Keras

import jax.numpy as jnp
import keras
import optax
from flax import nnx

from instdisc_core import MemoryBank, NonParametricSoftmax
from instdisc_core.data import ImageFolder

photos = ImageFolder("photos", size=32, corrupt="skip")

"""
## The encoder
"""


class Encoder(nnx.Module):
    """From pixels to unit rows."""

    def __init__(self, rngs, width=32, embedding_dim=128):
        self.first = nnx.Conv(3, width, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(width, 2 * width, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(2 * width, embedding_dim, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.first(images / 127.5 - 1))
        x = nnx.relu(self.second(x)).mean(axis=(1, 2))
        x = self.head(x)
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)


encoder = Encoder(nnx.Rngs(0))
optimizer = nnx.Optimizer(encoder, optax.adamw(1e-3), wrt=nnx.Param)
bank = MemoryBank(num_instances=len(photos), embedding_dim=128, seed=0)
objective = NonParametricSoftmax(temperature=0.1)
objective.build(bank.shape)

"""
## The step

Everything of Keras that moves is in `variables`: here the bank's. With `NCE` the objective has
variables too, log Z and the state of its random numbers: `bank.variables + objective.variables`.
"""

variables = bank.variables


def loss_and_values(encoder, values, images, indices):
    with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
        features = encoder(images)
        losses = objective(features, indices, bank)
        bank.update(indices, features, after=losses)  # after: XLA writes in place
    return losses.mean(), [scope.get_current_value(variable) for variable in variables]


@nnx.jit(donate_argnames="values")
def step(encoder, optimizer, values, images, indices):
    with_gradient = nnx.value_and_grad(loss_and_values, has_aux=True)
    (loss, values), gradient = with_gradient(encoder, values, images, indices)
    optimizer.update(encoder, gradient)
    return loss, values


"""
## The loop

`drop_remainder=True`: a last batch of another size would be compiled for itself. The images that it
leaves out are others in every epoch.
"""

values = [variable.value for variable in variables]
batches = photos.batches(min(64, len(photos)), seed=0, drop_remainder=True)
for epoch in range(20):
    batches.epoch = epoch
    for images, indices in batches:
        loss, values = step(encoder, optimizer, values, images, indices)
    print(f"epoch {epoch}: {float(loss):.3f} nats")

for variable, value in zip(variables, values, strict=True):
    variable.assign(value)  # the step donated what the variables held

"""
A compiled step cannot raise. An index that names no row gives its image the loss NaN and the
gradient zero, and moves no row; `int(bank.rejected_indices)` counts them.

## Search
"""

import numpy as np

from instdisc_core.index import ImageIndex

rows = np.concatenate([encoder(jnp.asarray(images)) for (images,) in photos.ordered()])
index = ImageIndex(rows, photos)
print(index.names[0], "is like", [index.names[j] for j in index.neighbors(3, [0]).indices[0]])
