"""What checkpoints cost: the time of one, against that of the steps between two."""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import keras

from benchmarks.faults.worker import images
from instdisc_core import recipes
from instdisc_core.checkpoints import Checkpoints

SETTINGS = {"paper-cifar10": 50_000, "small-cifar10": 10_000}  # recipes, and images
EVERY = 100  # steps
WARM_UPS = 1


class _Timed(Checkpoints):
    """Measures the steps and the checkpoints of a training, and stops it when it has enough."""

    def __init__(self, folder: Path, count: int):
        super().__init__(folder, save_freq=1)
        self.count = count
        self.steps: list[float] = []
        self.saves: list[float] = []

    def on_train_batch_begin(self, batch, logs=None):
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for a framework that only queued the step
        saving = time.perf_counter()
        super().on_train_batch_end(batch, logs)
        self.saves.append(time.perf_counter() - saving)
        self.steps.append(saving - self._start)
        self.model.stop_training = len(self.steps) == self.count + WARM_UPS


def measure(settings: dict[str, int] | None = None, count: int = 5) -> dict[str, Any]:
    """For each recipe, the median seconds of a step and of a checkpoint, flushed to the disk.

    Args:
        settings: the number of images for each recipe; None is ``SETTINGS``.
        count: steps, each followed by a checkpoint.
    """
    found = {}
    for name, n in (settings or SETTINGS).items():
        keras.backend.clear_session()
        recipe = recipes.get(name)
        source = images(n, recipe.image_size)
        batches = source.batches(recipe.batch_size, seed=0)
        model = recipe.build(n, len(batches), seed=0)
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # not a disk in memory
            timed = _Timed(Path(folder), count)
            model.fit(batches, callbacks=[timed], verbose=0)
            size = sum(p.stat().st_size for p in max(Path(folder).glob("epoch*")).iterdir())
        step, save = (median(s[WARM_UPS:]) for s in (timed.steps, timed.saves))
        found[name] = {
            "images": n,
            "step_seconds": step,
            "save_seconds": save,
            "bytes": size,
            "share": save / (EVERY * step),
        }
    return found
