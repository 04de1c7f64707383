"""Flushes rows that are in a file at the end of each epoch; ``fit`` of the model adds it."""

from typing import Any

import keras

from instdisc_core.host_rows import HostRows


class FlushedRows(keras.callbacks.Callback):
    """Marks the file of a model's rows as whole at the end of each epoch, if they are in one."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Flush, once the steps that were started are done."""
        table = self.model.instance_rows()
        if isinstance(table.rows, HostRows):
            table.bank_ops.settle()
            table.rows.flush()
