"""Tells the batches their epoch; ``fit`` of the model adds it."""

from typing import Any

import keras

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
