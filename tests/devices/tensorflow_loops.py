"""A training in a loop with ``strategy.run``, as in ``examples/train_tensorflow.py``."""

import keras
import numpy as np
import tensorflow as tf
from devices.trainings import DIM, OBJECTIVES, N, numpy
from keras import layers

from instdisc_core import MemoryBank


class Loop:
    """Everything that one training has, on the replicas of a strategy."""

    def __init__(self, objective, strategy):
        keras.utils.set_random_seed(0)
        self.strategy = strategy
        with strategy.scope():
            self.bank, self.objective = MemoryBank(N, DIM, seed=5), OBJECTIVES[objective]()
            parts = [layers.Flatten(), layers.Dense(12, activation="gelu")]
            parts += [layers.Dense(DIM), layers.UnitNormalization()]
            self.encoder = keras.Sequential([keras.Input((4, 4, 1)), *parts])
            self.optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
            self.optimizer.build(self.encoder.trainable_variables)
            self.objective.build(self.bank.shape)
        self.ranks, self.losses = self.bank.communicator, []
        # tf.train.Checkpoint finds the variables of layers, but not the seed of the negatives.
        owners = [self.encoder, self.bank, self.objective, self.optimizer]
        variables = [v.value for owner in owners for v in owner.variables]
        self.checkpoint = tf.train.Checkpoint(variables=variables)

    @tf.function(reduce_retracing=True)
    def step(self, x, indices):
        """The loss on each replica after a step with its part of a batch."""
        return self.strategy.run(self._step_of_a_replica, args=(x, indices))

    def train(self, batches):
        """Take a step with each of these batches, of all workers."""
        for x, indices in batches:
            losses = self.step(self._divided(x), self._divided(indices))
            self.losses.append(self.strategy.experimental_local_results(losses)[0])

    def outcome(self):
        """Everything that workers and one device must have in common."""
        return {
            "losses": np.array([numpy(loss) for loss in self.losses]),
            "rows": numpy(self.bank.bank_ops.dump(self.bank.rows)[0]),
            "weights": np.concatenate([numpy(w).ravel() for w in self.encoder.weights]),
            "log_z": np.array([numpy(value) for value in self.objective.report().values()]),
        }

    def _step_of_a_replica(self, x, indices):
        weights = self.encoder.trainable_variables
        with tf.GradientTape() as tape:
            features = self.encoder(x, training=True)
            features, indices = self.ranks.whole_batch(features, indices)
            with self.bank.bank_ops.divided():
                losses = self.objective(features, indices, self.bank)
            loss = self.ranks.whole_loss(tf.reduce_mean(losses))
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.bank.update(indices, features, after=losses)
        return tf.reduce_mean(losses)

    def _divided(self, batch):
        """The parts of this process, one for each of its replicas."""
        parts = np.array_split(batch, self.ranks.size)
        return self.strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(parts[replica.replica_id_in_sync_group])
        )
