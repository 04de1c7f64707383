"""Logs for TensorBoard, and pictures of logs."""

import csv
import io
import json
import os
from pathlib import Path

import keras
import numpy as np

from instdisc_core.files import remove_parts, replacing
from instdisc_core.validation import require


class LogFile(keras.callbacks.Callback):
    """Writes the logs of every epoch into a CSV file, whichever of them an epoch has.

    A column that an epoch lacks is empty there. A run that continues replaces the epochs that it
    repeats, and keeps those before: from its checkpoint where ``Checkpoints`` restored one, else
    from the file. (``keras.callbacks.CSVLogger`` fixes the columns in the first epoch, and after
    that loses others.)

    Args:
        path: of the file.

    Raises:
        ValueError: ``fit`` raises it before the first step if the file is damaged, and no
            checkpoint brings its rows back.

    Example: ``model.fit(images, indices, callbacks=[BankHealth(images), LogFile("log.csv")])``
    """

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path = Path(path)
        self._rows: list[dict[str, str]] | None = None

    def on_train_begin(self, logs=None):
        """Know nothing of an earlier fit but what the file says; remove what a kill left of it."""
        self._rows = None
        remove_parts(self.path.parent, self.path.name)

    def on_epoch_begin(self, epoch, logs=None):
        """Read the file, unless a checkpoint has brought its rows by now."""
        self._rows_so_far()

    def on_epoch_end(self, epoch, logs=None):
        """Replace the file."""
        row = {"epoch": str(epoch)} | {k: str(float(v)) for k, v in (logs or {}).items()}
        rows = [r for r in self._rows_so_far() if int(r["epoch"]) < epoch] + [row]
        columns = list(dict.fromkeys(name for r in rows for name in r))
        self._write([{name: r.get(name, "") for name in columns} for r in rows])

    def _rows_so_far(self):
        if self._rows is None:
            self._rows = read_log(self.path)
        return self._rows

    def get_state(self) -> dict[str, np.ndarray]:
        """The rows so far, for a run that continues."""
        return {} if self._rows is None else {"rows": np.array(json.dumps(self._rows))}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what ``get_state`` returned, and replace the file by it."""
        self._write(json.loads(str(state["rows"])))

    def _write(self, rows):
        """Replace the file, unless there is nothing to write."""
        self._rows = rows
        if not rows:
            return
        with replacing(self.path) as part, open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def read_log(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a log as dicts of strings; none if there is no such file.

    Raises:
        ValueError: the file is damaged.
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

    def __init__(self, folder):
        super().__init__()
        self.folder = str(folder)

    def on_train_begin(self, logs=None):
        """Open the file."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(self.folder)

    def on_epoch_end(self, epoch, logs=None):
        """Write what the logs hold."""
        for name, value in (logs or {}).items():
            if np.ndim(value) == 0:
                self._writer.add_scalar(name, float(value), epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs=None):
        """Close the file."""
        self._writer.close()


def plot_log(log, path):
    """Draw every column of a LogFile (or Keras's ``CSVLogger``) over the epochs, as PNG.

    Args:
        log: the CSV file.
        path: of the PNG file.

    Raises:
        ValueError: a file without an epoch, or without a finite number.

    Example: ``plot_log("runs/photos/log.csv", "runs/photos/log.png")``
    """
    from matplotlib.figure import Figure

    rows = read_log(log)
    require(bool(rows) and "epoch" in rows[0], f"{log}, without epochs", "a log of LogFile")
    epochs = [int(row["epoch"]) + 1 for row in rows]
    columns = {
        name: [_number(row[name]) for row in rows]
        for name in rows[0]
        if name not in (None, "epoch")
    }
    columns = {name: values for name, values in columns.items() if np.any(np.isfinite(values))}
    columns = dict(sorted(columns.items(), key=lambda column: column[0] != "loss"))
    require(bool(columns), f"{log}, without a finite number", "a log of a run that did not diverge")
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = Figure((4 * across, 2.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (name, values) in zip(axes, columns.items(), strict=False):
        axis.plot(epochs, values, marker="." if len(epochs) < 40 else None)
        axis.set_title(name.removeprefix("health_").replace("_", " "), fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[len(columns) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(columns) - across) : len(columns)]:
        axis.set_xlabel("epoch")
    figure.savefig(path, dpi=110)


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return np.nan
