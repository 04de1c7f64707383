"""Instance discrimination in a TensorFlow loop: `GradientTape` inside a `tf.function`.

    python examples/train_tensorflow.py
    python examples/train_tensorflow.py --data path/to/images --objective nce --epochs 100

The memory bank and the objective are called in the step, like any other layer. The bank's rows are
a `tf.Variable`, and the graph writes into it.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # before anything imports Keras

import common
import keras
import tensorflow as tf
from keras import layers
from tqdm import trange

from instdisc_core import MemoryBank


def main():
    """Train, then report."""
    args = common.parse_arguments(__doc__)
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

    @tf.function
    def train_step(batch, indices):
        with tf.GradientTape() as tape:
            features = encoder(augmenter(batch), training=True)
            losses = objective(features, indices, bank)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, weights), weights)
        bank.update(indices, features, after=losses)  # only now: the loss has read the old rows
        return loss

    batches = common.training_batches(images, args)
    for epoch in (bar := trange(args.epochs, unit="epoch")):
        batches.epoch = epoch
        for pixels, indices in batches:
            loss = train_step(tf.constant(pixels), tf.constant(indices))
        bar.set_postfix(loss=f"{float(loss):.3f}")

    common.report(lambda batch: encoder(batch, training=False), images, bank)


if __name__ == "__main__":
    main()
