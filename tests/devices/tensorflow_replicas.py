"""What two replicas of ``MirroredStrategy`` find, and one device, each case written to a folder."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from devices.trainings import CASES, DIM, Case, N, batches, build, numpy, outcome
from keras import layers

from instdisc_core import NCE, Checkpoints, MemoryBank

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

NAMES = ("exact-whole", "nce-whole", "shared_nce-whole", "int8-whole", "duplicates-whole")


class Stop(keras.callbacks.Callback):
    """Interrupts a training in the middle of its second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if int(numpy(self.model.optimizer.iterations)) == 8:
            raise KeyboardInterrupt


def copies(model):
    """What the replicas have of each variable: the largest difference of any."""
    differences = [0.0]
    for variable in [*model.trainable_variables, *model.memory_bank.variables]:
        first, *others = tf.distribute.get_strategy().experimental_local_results(variable.value)
        differences += [np.abs(numpy(first) - numpy(other)).max() for other in others]
    return np.array([max(differences)])


def trained(name, strategy):
    case = CASES[name]
    with strategy.scope() if strategy else nullcontext():
        model = build(case)
    losses = model.fit(batches(case), epochs=case.epochs, verbose=0).history["loss"]
    with strategy.scope() if strategy else nullcontext():
        replicas = copies(model)
    everything = name in ("exact-whole", "int8-whole")  # each function of a model is compiled
    return {**outcome(model, losses, everything), "replicas": replicas}


def loop(strategy):
    """What a loop with ``strategy.run`` ends with, as in ``examples/train_tensorflow.py``."""
    keras.utils.set_random_seed(0)
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        bank, objective = MemoryBank(N, DIM, seed=5), NCE(7, 0.2, seed=3)
        parts = [layers.Flatten(), layers.Dense(DIM, activation="gelu"), layers.UnitNormalization()]
        encoder = keras.Sequential([keras.Input((4, 4, 1)), *parts])
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(encoder.trainable_variables)
        objective.build(bank.shape)
    ranks, weights = bank.communicator, encoder.trainable_variables

    def step_of_a_replica(x, indices):
        with tf.GradientTape() as tape:
            features, indices = ranks.whole_batch(encoder(x, training=True), indices)
            with bank.bank_ops.divided():
                losses = objective(features, indices, bank)
            loss = ranks.whole_loss(tf.reduce_mean(losses))
        optimizer.apply(tape.gradient(loss, weights), weights)
        bank.update(indices, features, after=losses)
        return tf.reduce_mean(losses)

    @tf.function
    def step(x, indices):
        return strategy.run(step_of_a_replica, args=(x, indices))

    def divided(batch):
        parts = np.array_split(batch, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda replica: tf.constant(parts[replica.replica_id_in_sync_group])
        )

    found = [step(*map(divided, batch)) for batch in list(batches(Case()))[:3]]
    losses = [strategy.experimental_local_results(loss)[0] for loss in found]
    return {
        "losses": np.array([numpy(loss) for loss in losses]),
        "rows": numpy(bank.bank_ops.dump(bank.rows)[0]),
        "weights": np.concatenate([numpy(weight).ravel() for weight in weights]),
        "log_z": numpy(objective.partition.log_z),
    }


def resumed(folder, strategy):
    """What a training ends with that was stopped in the middle, and one that was not."""
    ends = []
    for name, stops in (("through", False), ("stopped", True), ("stopped", False)):
        with strategy.scope():
            model = build(CASES["nce-whole"])
        callbacks = [Checkpoints(folder / name, save_freq=3)] + [Stop()] * stops
        try:
            model.fit(batches(CASES["nce-whole"]), epochs=2, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            continue
        ends.append(outcome(model, everything=False))
    model.save_weights(folder / "replicas.weights.h5")
    return {f"{name}-{i}": x for i, end in enumerate(ends) for name, x in end.items()}


def main(folder):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    for name in NAMES:
        np.savez(folder / f"one-{name}.npz", **trained(name, None))
        np.savez(folder / f"two-{name}.npz", **trained(name, strategy))
    np.savez(folder / "one-loop.npz", **loop(tf.distribute.get_strategy()))
    np.savez(folder / "two-loop.npz", **loop(strategy))
    np.savez(folder / "resumed.npz", **resumed(folder, strategy))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
