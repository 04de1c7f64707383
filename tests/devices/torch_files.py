"""What two ranks write next to each other: logs, and the folder of a recipe's run."""

import numpy as np
import torch.distributed as dist
from devices.trainings import Case, batches, build, numpy

from instdisc_core import recipes
from instdisc_core.callbacks import LogFile, TensorBoardLogger
from instdisc_core.data import ImageArray

RECIPE = {"width": 4, "depth": 10, "stem": "patch", "projector": (6,), "embedding_dim": 8}
RECIPE |= {"batch_size": 6, "epochs": 3, "dtype_policy": "float32"}


def logs(folder):
    """A training that each rank logs in files of its own name."""
    rank = dist.get_rank()
    callbacks = [LogFile(folder / f"log-{rank}.csv"), TensorBoardLogger(folder / f"board-{rank}")]
    build(Case()).fit(batches(Case()), epochs=2, verbose=0, callbacks=callbacks)
    dist.barrier()  # before anybody looks for the files


def recipe_runs(folder):
    """The rows, and the epochs, of a recipe's run of all epochs, and of one that is continued."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype("uint8")
    recipe = recipes.get("small-cifar10", **RECIPE)
    found = {}
    for name, epochs in (("through", (3,)), ("continued", (2, 3))):
        for last in epochs:
            model = recipe.train(
                ImageArray(pixels), folder / name, epochs=last, verbose=0, judge=False, sharded=True
            )
            found[f"{name} {last}"] = model.history.epoch
        found[name] = numpy(model.memory_bank.lookup(np.arange(10))).tolist()
    return found
