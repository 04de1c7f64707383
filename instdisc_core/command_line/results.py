"""The command that writes what an index says: a report of pages, pictures and lists."""

import sys
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from instdisc_core.callbacks import plot_log
from instdisc_core.command_line.found import Found
from instdisc_core.command_line.group import answer, found_argument, json_option, working
from instdisc_core.command_line.questions import THRESHOLD
from instdisc_core.data import ImageFolder
from instdisc_core.data.names import printable
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation import TSNEPositions, evaluate, plot_tsne
from instdisc_core.evaluation.measures import Measure
from instdisc_core.exports.tables import write_table
from instdisc_core.index import DEFAULT_THRESHOLD, ImageIndex, Outliers
from instdisc_core.index.contents import LEAST
from instdisc_core.page.writing import require_own_page
from instdisc_core.validation import require

OF_EVALUATION = ["report.csv", "report.json", "report.txt"]
WRITTEN = ["near-duplicates.csv", "outliers.csv", "tsne.png", "log.png", *OF_EVALUATION]
MEASURES: tuple[Measure, ...] = ("knn", "linear", "clustering")


@click.command()
@found_argument
@click.option("--output", "-o", help="Folder to write to; by default FOUND/report.")
@click.option("--threshold", "-t", default=DEFAULT_THRESHOLD, help=THRESHOLD)
@click.option("--test", help="Folder of other images, one subfolder per class, to evaluate on.")
@json_option
def report(
    found: str, output: str | None, threshold: float, test: str | None, as_json: bool
) -> None:
    """Write a web page of all photos, pictures and lists of what the embedding found.

    The page, index.html, needs no server: neighbors of each photo, near-duplicates, outliers,
    clusters, a map and a search for names. Next to it are a picture of the map, the curves of the
    training, and lists. With --test also accuracies, if photos are in a subfolder for each class.
    Run again, it makes only the thumbnails of photos that are new.

    \b
    Examples:
      instdisc report found
      instdisc report found --test test/ --output results
    """
    folder = Found(found)
    target = folder.folder / "report" if output is None else Path(output)
    with working():
        folder.check_output(str(target) if output is None else output)
        _check_target(target)
        index = folder.index()
        photos = folder.photos(index)
        evaluated = None if test is None else _evaluated(folder, photos, test)
        positions = folder.positions(index) if len(index) >= LEAST else None
        index.save_page(
            target,
            photos,
            photos.folder.name,
            threshold=threshold,
            positions=positions,
            verbose=sys.stderr.isatty(),
        )
        groups = _lists(target, index, threshold)
        written = ["index.html", "near-duplicates.csv", "outliers.csv"]
        if positions is not None:
            found_positions = TSNEPositions(positions, np.arange(len(index)))
            plot_tsne(index.rows, photos, target / "tsne.png", found=found_positions)
            written.append("tsne.png")
        log = folder.folder / "log.csv"
        if log.exists():
            plot_log(log, target / "log.png")
            written.append("log.png")
        result: dict[str, Any] = {"output": str(target), "photos": len(index), "groups": groups}
        table = None
        if evaluated is not None:
            model, others = evaluated
            table = evaluate(model, photos, others, target, MEASURES)
            written += OF_EVALUATION
            result["evaluation"] = table.rows
        result["files"] = written
    text = f"{printable(str(target))}: {', '.join(written)}.\n"
    text += f"{groups} groups of near-duplicates among {len(index)} photos."
    text += "" if table is None else f"\n{table}"
    answer(as_json, result, lambda: click.echo(text))


def _lists(folder: Path, index: ImageIndex, threshold: float) -> int:
    """Write near-duplicates and outliers as CSV; return the number of groups."""
    copies = index.near_duplicates(threshold)
    members = [(i + 1, index.names[j]) for i, group in enumerate(copies.groups) for j in group]
    numbers, names = zip(*members, strict=True) if members else ((), ())
    write_table(folder / "near-duplicates.csv", {"group": numbers, "name": names})
    n, odd = len(index), Outliers(np.empty(0, "int64"), np.empty(0))
    if n > 1:
        odd = index.outliers(min(100, n), min(5, n - 1))
    named = [index.names[i] for i in odd.indices]
    write_table(folder / "outliers.csv", {"name": named, "similarity": odd.similarities})
    return len(copies.groups)


def _check_target(target: Path) -> None:
    """Raise for a folder in which a report would replace files that are of no report."""
    require_own_page(target)
    mine = [name for name in WRITTEN if (target / name).exists()]
    require(
        not mine or (target / "index.html").exists(),
        f"{printable(str(target))}, a folder without a report, that holds {', '.join(mine)}",
        "a folder without files of these names, or an earlier report",
        "They would be replaced: choose another folder with --output.",
    )


def _evaluated(folder: Found, photos: ImageFolder, test: str) -> tuple[EmbeddingModel, ImageFolder]:
    """The model to evaluate, and the images to evaluate it on."""
    require(
        folder.model.exists(),
        f"{printable(str(folder.folder))}, which holds no model.keras",
        "one that instdisc train wrote",
    )
    others = ImageFolder(test, photos.size, "skip", "keep", class_names=photos.class_names)
    return keras.saving.load_model(folder.model), others
