"""Instance discrimination in a JAX loop: one pure step, compiled, that donates its state.

    python examples/train_jax.py
    python examples/train_jax.py --data path/to/images --objective nce --epochs 100
    XLA_FLAGS=--xla_force_host_platform_device_count=4 python examples/train_jax.py   # four devices

A JAX step takes its state as an argument and returns it. `keras.StatelessScope` makes that of Keras
layers, the memory bank among them: inside it, reading a variable gives the value that was passed
in, and assigning to one is noted down instead of done.

Where there are several devices, each holds a part of the memory bank's rows, and gets a part of
each batch. The step is the same: JAX computes with arrays that are divided as with others.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before anything imports Keras

from functools import partial

import common
import jax
import keras
from keras import layers
from tqdm import trange

from instdisc_core import MemoryBank, layout_map


def divide_the_bank():
    """Let all devices share the rows of the memory bank that is built next."""
    devices = keras.distribution.list_devices()
    if len(devices) > 1:
        layouts = layout_map(keras.distribution.DeviceMesh((len(devices),), ["batch"], devices))
        distribution = keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
        keras.distribution.set_distribution(distribution)


def divided(batch):
    """A batch of which each device has a part; as it is, if they do not divide it."""
    distribution = keras.distribution.distribution()
    if distribution is None or len(batch) % distribution.device_mesh.shape[0]:
        return batch
    return keras.distribution.distribute_tensor(batch, distribution.get_data_layout(batch.shape))


def main():
    """Train, then report."""
    args = common.parse_arguments(__doc__)
    keras.utils.set_random_seed(args.seed)
    images = common.load_images(args.data, args.image_size, args.seed)
    divide_the_bank()

    bank = MemoryBank(len(images.train), args.embedding_dim, seed=args.seed)
    objective = common.build_objective(args.objective, args.temperature, args.seed)
    objective.build(bank.shape)  # the parametric softmax has weights of its own
    augmenter = common.RandomAffine(seed=args.seed)
    encoder = keras.Sequential(
        [
            common.build_encoder(images.train.shape[1:]),
            layers.Dense(args.embedding_dim),
            layers.UnitNormalization(),
        ]
    )
    # Everything that moves: by the optimizer, and the bank, running means, random states.
    variables = [v for part in (encoder, objective, augmenter, bank) for v in part.variables]
    weights = [v for v in variables if v.trainable]
    others = [v for v in variables if not v.trainable]
    optimizer = keras.optimizers.Adam(args.learning_rate)
    optimizer.build(weights)

    def loss_and_others(weight_values, other_values, batch, indices):
        values = zip(weights + others, weight_values + other_values, strict=True)
        with keras.StatelessScope(state_mapping=values) as scope:
            features = encoder(augmenter(batch), training=True)
            losses = objective(features, indices, bank)
            # After the loss has read the old rows; `after` lets XLA see it, and write in place.
            bank.update(indices, features, after=losses)
        return losses.mean(), [scope.get_current_value(v) for v in others]

    @partial(jax.jit, donate_argnums=0)
    def train_step(state, batch, indices):
        weight_values, other_values, optimizer_values = state
        with_gradient = jax.value_and_grad(loss_and_others, has_aux=True)
        (loss, other_values), gradient = with_gradient(weight_values, other_values, batch, indices)
        weight_values, optimizer_values = optimizer.stateless_apply(
            optimizer_values, gradient, weight_values
        )
        return (weight_values, other_values, optimizer_values), loss

    parts = weights, others, optimizer.variables
    state = tuple([v.value for v in part] for part in parts)
    batches = common.training_batches(images, args)
    for epoch in (bar := trange(args.epochs, unit="epoch")):
        batches.epoch = epoch
        for pixels, indices in batches:
            state, loss = train_step(state, divided(pixels), divided(indices))
        bar.set_postfix(loss=f"{float(loss):.3f}")

    for part, values in zip(parts, state, strict=True):  # the step donated what they held
        for variable, value in zip(part, values, strict=True):
            variable.assign(value)
    common.report(jax.jit(lambda batch: encoder(batch, training=False)), images, bank)


if __name__ == "__main__":
    main()
