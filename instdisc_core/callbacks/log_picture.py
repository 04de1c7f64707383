"""A picture of a log."""

import os

import numpy as np

from instdisc_core.callbacks.log_file import read_log
from instdisc_core.validation import require


def plot_log(log: str | os.PathLike, path: str | os.PathLike) -> None:
    """Draw every column of a LogFile (or Keras's ``CSVLogger``) over the epochs, as PNG.

    Args:
        log: the CSV file.
        path: of the PNG file.

    Raises:
        ValueError: the file is damaged, has no epochs, or has no finite numbers.

    Example:
    ```python
    model.fit(images, indices, callbacks=[LogFile("log.csv")])
    plot_log("log.csv", "log.png")
    ```
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


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return np.nan
