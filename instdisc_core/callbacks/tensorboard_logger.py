"""Logs for TensorBoard."""

import os
from typing import Any

import keras
import numpy as np

from instdisc_core.communicator import writes_files


class TensorBoardLogger(keras.callbacks.Callback):
    """Writes the logs of every epoch for TensorBoard, on every framework, without TensorFlow.

    Args:
        folder: to write to; ``tensorboard --logdir FOLDER`` shows it.

    Raises:
        ImportError: tensorboardX is not installed (``pip install tensorboardX``).

    Source:
        ``keras.callbacks.TensorBoard`` needs TensorFlow; this uses tensorboardX.

    Example: ``model.fit(images, indices, callbacks=[TensorBoardLogger("runs/first")])``
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        self.folder = str(folder)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the file."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(self.folder, write_to_disk=writes_files(self.model))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write every number in the logs."""
        for name, value in (logs or {}).items():
            if np.ndim(value) == 0:
                self._writer.add_scalar(name, float(value), epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the file."""
        self._writer.close()
