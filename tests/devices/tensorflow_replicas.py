"""What two replicas of ``MirroredStrategy`` find, and one device, each case written to a folder."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from devices.tensorflow_loops import Loop
from devices.trainings import CASES, Case, batches, build, numpy, outcome

from instdisc_core import Checkpoints

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

NAMES = (
    "exact-whole", "nce-whole", "exact_z-whole", "shared_nce-whole", "int8-whole",
    "duplicates-whole",
)  # fmt: skip


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
    """What a loop with ``strategy.run`` ends with."""
    loop = Loop("nce", strategy)
    loop.train(list(batches(Case()))[:3])
    return loop.outcome()


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
