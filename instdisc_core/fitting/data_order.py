"""Tells the batches their epoch; ``fit`` of the model adds it."""

import warnings
from typing import Any

import keras

from instdisc_core.checkpoints.identity import iterations
from instdisc_core.data.order import OrderedBatches


class DataOrder(keras.callbacks.Callback):
    """Tells the batches which epoch it is, and the model which data its rows belong to.

    Args:
        batches: the OrderedBatches that are trained on.
    """

    def __init__(self, batches: OrderedBatches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the epoch. Another callback may have restored a checkpoint before."""
        manifest = self.batches.manifest
        if manifest is not None:
            self.model.check_data(manifest)
            self.model.manifest = manifest
        self.batches.epoch = epoch


def warn_of_the_same_images(model: keras.Model, batches: OrderedBatches, epoch: int) -> None:
    """Warn where a sliding window, which was trained on, would begin again.

    Args:
        model: what will be trained.
        batches: what on.
        epoch: the first one.
    """
    if batches.sliding_window is None or model.optimizer is None:
        return
    done = iterations(model.optimizer) // len(batches)
    if epoch == 0 < done:
        warnings.warn(
            f"Received: fit from epoch 0 of a {batches.sliding_window}, with a model that was "
            f"trained for {done} epochs. Expected the epoch that follows: the window begins with "
            f"the images that were seen first. Set initial_epoch={done}, and epochs to that of the "
            "end.",
            stacklevel=2,
        )
