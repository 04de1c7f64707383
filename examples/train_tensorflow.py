"""Instance discrimination in a TensorFlow loop: `GradientTape` inside a `tf.function`.

    python examples/train_tensorflow.py
    python examples/train_tensorflow.py --data path/to/images --objective nce --epochs 100

The memory bank and the objective are called in the step, like any other layer. The bank's rows are
a `tf.Variable`, and the graph writes into it.

Where there are several GPUs, each gets a part of each batch and has a whole memory bank. With
`TF_CONFIG` in the environment, several machines train one bank: start the script on each.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # before anything imports Keras

import common
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from tqdm import trange

from instdisc_core import MemoryBank


def choose_strategy():
    """A replica on each device, if there are several."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def main():
    """Train, then report."""
    args = common.parse_arguments(__doc__)
    strategy = choose_strategy()
    with strategy.scope():
        train(args, strategy)


def train(args, strategy):
    """Train on all replicas of a strategy, then report."""
    keras.utils.set_random_seed(args.seed)
    images = common.load_images(args.data, args.image_size, args.seed)

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
    weights = encoder.trainable_variables + objective.trainable_variables
    optimizer = keras.optimizers.Adam(args.learning_rate)
    optimizer.build(weights)

    ranks = bank.communicator  # one device has one, too

    def step_of_a_replica(batch, indices):
        with tf.GradientTape() as tape:
            features = encoder(augmenter(batch), training=True)
            features, indices = ranks.whole_batch(features, indices)
            with bank.bank_ops.divided():  # the replicas share the work on the whole batch
                losses = objective(features, indices, bank)
            loss = ranks.whole_loss(tf.reduce_mean(losses))
        optimizer.apply(tape.gradient(loss, weights), weights)
        bank.update(indices, features, after=losses)  # only now: the loss has read the old rows
        return tf.reduce_mean(losses)

    @tf.function
    def train_step(batch, indices):
        return strategy.run(step_of_a_replica, args=(batch, indices))

    def divided(batch):
        """A part of the batch of this process for each of its replicas."""
        parts = np.array_split(batch, ranks.size // ranks.processes)
        first = ranks.process * len(parts)
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(parts[replica.replica_id_in_sync_group - first])
        )

    batches = common.training_batches(images, args)
    for epoch in (bar := trange(args.epochs, unit="epoch", disable=ranks.process > 0)):
        batches.epoch = epoch
        for pixels, indices in batches:
            losses = train_step(divided(pixels), divided(indices))
        loss = strategy.experimental_local_results(losses)[0]
        bar.set_postfix(loss=f"{float(loss):.3f}")

    if ranks.process == 0:
        common.report(lambda batch: encoder(batch, training=False), images, bank)


if __name__ == "__main__":
    main()
