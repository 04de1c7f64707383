"""A small model with state of every kind, and ways to train it and to stop it."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import small_model

from instdisc_core import NCE, UniformSampler
from instdisc_core.callbacks import BankHealth, LogFile
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.data import ImageArray

N, EPOCHS, BATCH = 10, 3, 4  # steps of 4, 4 and 2 images
STEPS = 3
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 2, 2, 3)).astype("uint8")


def build(optimizer=None, n=N, compiled=False):
    """A model with state of every kind: noise, statistics, log Z, momentum.

    What a checkpoint does is the same whether steps are compiled; one test compiles.
    """
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="gelu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=1),
        ]
    )
    objective = NCE(4, 0.3, sampler=UniformSampler(seed=2), proximal_weight=0.5)
    augmenter = keras.Sequential([keras.layers.RandomBrightness(0.2, seed=3)])
    optimizer = optimizer or keras.optimizers.Adam(0.01)
    return small_model(
        encoder, n, 4, objective, optimizer=optimizer, compiled=compiled, augmenter=augmenter
    )


def batches():
    return ImageArray(IMAGES).batches(BATCH, seed=5)


def as_source(model, **kwargs):
    model.fit(batches(), epochs=EPOCHS, verbose=0, **kwargs)


def as_arrays(model, **kwargs):
    model.fit(IMAGES, np.arange(N), BATCH, EPOCHS, 0, **kwargs)


def state(model):
    return [numpy(v) for v in (*model.variables, *model.optimizer.variables)]


def assert_equal(model, other):
    for ours, theirs in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Stop(keras.callbacks.Callback):
    """Interrupts the training after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.stop()

    def stop(self):
        raise KeyboardInterrupt


def run(train, folder, stop=0, save_freq=1, **kwargs):
    """One start of the same command."""
    model = build(**kwargs)
    health = BankHealth(IMAGES, sample=6, k=2)
    callbacks = [health, LogFile(folder / "log.csv"), Checkpoints(folder / "saved", save_freq)]
    train(model, callbacks=[*callbacks, Stop(stop)])
    return model


def interrupted(train, folder, stop, **kwargs):
    with pytest.raises(KeyboardInterrupt):
        run(train, folder, stop, **kwargs)


def build_plain(optimizer=None):
    """A small model: where a training stops does not depend on what it trains."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten()])
    return small_model(encoder, optimizer=optimizer, compiled=False)


def names(folder):
    return sorted(path.name for path in folder.glob("epoch*"))


class Ask(Stop):
    """Asks ``fit`` to stop instead."""

    def stop(self):
        self.model.stop_training = True


class Count(keras.callbacks.Callback):
    """Counts steps, over all starts."""

    def __init__(self):
        super().__init__()
        self.steps, self.ended_with = 0, None

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_train_end(self, logs=None):
        self.ended_with = logs

    def get_state(self):
        return {"steps": np.array(self.steps)}

    def set_state(self, state):
        self.steps = int(state["steps"])
