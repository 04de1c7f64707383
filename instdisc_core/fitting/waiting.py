"""Warns when training waits for its images; ``fit`` of the model adds it."""

import time
import warnings
from typing import Any

import keras

from instdisc_core.data.order import OrderedBatches

SHARE = 0.3  # of an epoch
SECONDS = 10  # in short epochs the first batch alone is a large share


class Waiting(keras.callbacks.Callback):
    """Warns, once in a training, of an epoch that waits too long for its images.

    It warns above 30 % of the epoch, if that is at least 10 seconds.

    Args:
        batches: the OrderedBatches that are trained on.
    """

    def __init__(self, batches: OrderedBatches):
        super().__init__()
        self.batches = batches
        self._warned = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the time."""
        self._start, self._before = time.perf_counter(), self.batches.seconds_waited

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Warn if decoding was slower than training."""
        whole = time.perf_counter() - self._start
        waited = self.batches.seconds_waited - self._before
        if waited > SHARE * whole and waited >= SECONDS and not self._warned:
            self._warned = True
            warnings.warn(
                f"Received: images that are decoded too slowly: epoch {epoch + 1} waited "
                f"{waited:.0f} of its {whole:.0f} seconds for them. Expected less than "
                f"{SHARE:.0%}. Keep the decoded images in memory (cache=True), use more workers, "
                "train on smaller files, or pip install 'instdisc-core[fast-images]'.",
                stacklevel=2,
            )
