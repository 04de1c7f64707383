"""A training that meets a fault; ``benchmarks.faults.kills`` starts it again and again.

    KERAS_BACKEND=torch python -m benchmarks.faults.worker small FOLDER
    KERAS_BACKEND=torch python -m benchmarks.faults.worker small FOLDER \
        --fault 'kill:before fsync state.npz:2:0'

At the end it prints, as JSON, a digest of every variable and how often each point was reached.
"""

import argparse
import hashlib
import json
from pathlib import Path

import keras
import numpy as np

from benchmarks.faults.points import Fault, Points
from instdisc_core import NCE, InstanceDiscrimination, UniformSampler, recipes
from instdisc_core.augmentation import RandomResizedCrop
from instdisc_core.callbacks import BankHealth, LogFile
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.data import ImageArray

EPOCHS, BATCH_SIZE = 3, 4
STEPS = 5  # an epoch
SAVE_FREQ = 2


class Told(keras.callbacks.Callback):
    """Reaches points of the training, before other callbacks look at its step or epoch.

    Args:
        points: to reach.
    """

    def __init__(self, points: Points):
        super().__init__()
        self.points = points

    def on_train_begin(self, logs=None):
        """Say that the training begins, for who kills it from outside."""
        print("training", flush=True)

    def on_train_batch_end(self, batch, logs=None):
        """After a step, before it is saved."""
        self.points.reach("step")

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch, before it is logged and saved."""
        self.points.reach("epoch")

    def on_train_end(self, logs=None):
        """After the training, before the model is saved."""
        self.points.reach("end")


def images(n: int, size: int) -> ImageArray:
    """Random images, the same ones each time."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3))
    return ImageArray(pixels.astype("uint8"))


def build(n: int = STEPS * BATCH_SIZE, compiled: bool = True) -> InstanceDiscrimination:
    """A small model with state of every kind.

    Statistics, dropout, augmentation and noise with random states, log Z, and the moments of Adam.

    Args:
        n: images.
        compiled: whether steps are compiled, where the framework does that.
    """
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(12, activation="gelu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=1),
        ]
    )
    objective = NCE(4, 0.3, sampler=UniformSampler(seed=2), proximal_weight=0.5)
    augmenter = RandomResizedCrop(8, 8, seed=3)
    model = InstanceDiscrimination(encoder, n, 8, objective, augmenter=augmenter, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(0.01), run_eagerly=not compiled)
    return model


def small(folder: Path, points: Points, compiled: bool = True) -> dict[str, str]:
    """A training by ``fit``."""
    model, source = build(compiled=compiled), images(STEPS * BATCH_SIZE, 8)
    callbacks = [
        Told(points),
        BankHealth(source, sample=8, k=2),
        LogFile(folder / "log.csv"),
        Checkpoints(folder / "checkpoints", SAVE_FREQ),
    ]
    batches = source.batches(BATCH_SIZE, seed=5)
    model.fit(batches, epochs=EPOCHS, callbacks=callbacks, verbose=0)
    return digests(model)


def eager(folder: Path, points: Points) -> dict[str, str]:
    """A training by ``fit`` whose steps are not compiled, which starts sooner."""
    return small(folder, points, compiled=False)


def recipe(folder: Path, points: Points) -> dict[str, str]:
    """A training by a recipe, which also writes ``recipe.json`` and ``model.keras``."""
    small = {"width": 4, "embedding_dim": 8, "batch_size": 8, "epochs": 2}
    model = recipes.get("small-cifar10", **small, dtype_policy="float32").train(
        images(16, 32), folder, callbacks=[Told(points)], verbose=0, save_freq=1
    )
    saved = keras.saving.load_model(folder / "model.keras")
    return digests(model) | {f"saved {k}": v for k, v in digests(saved).items()}


MODES = {"small": small, "eager": eager, "recipe": recipe}


def digests(model: keras.Model) -> dict[str, str]:
    """A digest of every variable of a model and its optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {
        f"{i} {variable.path}": digest(keras.ops.convert_to_numpy(variable))
        for i, variable in enumerate(variables)
    }


def digest(array: np.ndarray) -> str:
    """Hexadecimal digits for the bits of an array, its type and shape."""
    array = np.ascontiguousarray(array)
    about = f"{array.dtype} {array.shape}".encode()
    return hashlib.blake2b(about + array.tobytes(), digest_size=16).hexdigest()


def main():
    """Train, with the fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fault", type=Fault.parse)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    points = Points(args.folder, args.fault)
    points.watch()
    variables = MODES[args.mode](args.folder, points)
    print(json.dumps({"variables": variables, "points": points.counts}))


if __name__ == "__main__":
    main()
