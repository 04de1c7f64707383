"""Logs as a CSV file."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from instdisc_core.communicator import writes_files
from instdisc_core.files import remove_parts, replacing
from instdisc_core.validation import require


class LogFile(keras.callbacks.Callback):
    """Writes the logs of every epoch into a CSV file.

    Epochs may have different logs: where an epoch lacks a column, its cell is empty. A run that
    continues replaces the epochs that it repeats and keeps those before them: from its checkpoint
    where ``Checkpoints`` restored one, else from the file. (``keras.callbacks.CSVLogger`` takes the
    columns of the first epoch and drops those that appear later.)

    Args:
        path: of the file.

    Raises:
        ValueError: from ``fit``, before the first step, if the file is damaged and no checkpoint
            restores its rows.

    Example: ``model.fit(images, indices, callbacks=[BankHealth(images), LogFile("log.csv")])``
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: list[dict[str, str]] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the rows of an earlier ``fit``, and remove what a killed process left."""
        self._rows = None
        if writes_files(self.model):
            remove_parts(self.path.parent, self.path.name)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Read the file, unless a checkpoint has restored its rows."""
        self._rows_so_far()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Replace the file."""
        row = {"epoch": str(epoch)} | {
            name: str(float(value)) for name, value in (logs or {}).items() if np.ndim(value) == 0
        }
        rows = [r for r in self._rows_so_far() if int(r["epoch"]) < epoch] + [row]
        columns = list(dict.fromkeys(name for r in rows for name in r))
        self._write([{name: r.get(name, "") for name in columns} for r in rows])

    def _rows_so_far(self) -> list[dict[str, str]]:
        if self._rows is None:
            self._rows = read_log(self.path)
        return self._rows

    def get_state(self) -> dict[str, np.ndarray]:
        """The rows so far, for a checkpoint."""
        return {} if self._rows is None else {"rows": np.array(json.dumps(self._rows))}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore what ``get_state`` returned, and replace the file by it."""
        self._write(json.loads(str(state["rows"])))

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the file, unless there is nothing to write, or another process writes it."""
        self._rows = rows
        if not rows or not writes_files(self.model):
            return
        with replacing(self.path) as part, open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def read_log(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a log as dicts of strings; an empty list if there is no such file.

    Raises:
        ValueError: the file is damaged.

    Example:
    ```python
    model.fit(images, indices, callbacks=[LogFile("log.csv")])
    losses = [float(row["loss"]) for row in read_log("log.csv")]
    ```
    """
    if not Path(path).exists():
        return []
    text = Path(path).read_bytes().decode("utf-8", "replace")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise ValueError(
            f"Received: {path}, which is no CSV file ({error}). Expected a log that LogFile wrote. "
            "Restore it, or remove it to begin a new one."
        ) from error
    whole = all(None not in row and None not in row.values() for row in rows)
    numbered = all(row.get("epoch", "0").isdecimal() for row in rows)
    require(
        whole and numbered and (not text or text.endswith("\n")),
        f"{path}, whose rows do not all have an epoch and every column",
        "a log that LogFile wrote",
        "Restore it, or remove it to begin a new one.",
    )
    return rows
