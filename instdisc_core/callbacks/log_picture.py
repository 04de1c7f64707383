"""A picture of a log."""

import os

import numpy as np

from instdisc_core.callbacks.log_file import read_log
from instdisc_core.validation import require

# By the last words of a column's name. Others, such as log Z or a learning rate, have no direction.
BETTER = {
    "loss": "lower",
    "alignment": "lower",
    "uniformity": "lower",
    "positive_rank": "lower",
    "collapsed": "lower",
    "accuracy": "higher",
    "agreement": "higher",
    "effective_rank": "higher",
}


def plot_log(log: str | os.PathLike, path: str | os.PathLike) -> None:
    """Draw the columns of a LogFile (or Keras's ``CSVLogger``) over the epochs, as PNG.

    The title of a curve says whether lower or higher is better, where one is. Columns that are 0 in
    every epoch are not drawn, but named below.

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
    zero = [name for name in columns if not np.any(np.nan_to_num(columns[name]))]
    zero = [] if len(zero) == len(columns) else zero
    columns = {name: values for name, values in columns.items() if name not in zero}
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = Figure((4 * across, 2.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (name, values) in zip(axes, columns.items(), strict=False):
        axis.plot(epochs, values, marker="." if len(epochs) < 40 else None)
        better = [f" ({way} is better)" for end, way in BETTER.items() if name.endswith(end)]
        axis.set_title("".join([_title(name), *better[:1]]), fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[len(columns) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(columns) - across) : len(columns)]:
        axis.set_xlabel("epoch")
    if zero:
        always = f"Always 0: {', '.join(map(_title, zero))}"
        figure.supxlabel(always, fontsize=9, color="#666666")
    figure.savefig(path, dpi=110)


def _title(name: str) -> str:
    return name.removeprefix("health_").replace("_", " ")


def _number(text: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return np.nan
