"""The results of an evaluation: a table as text, CSV and JSON."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from instdisc_core.validation import require

COLUMNS = ("measure", "features", "value", "settings")


class Row(TypedDict):
    """One value of a report: what was measured, of which features, with which settings."""

    measure: str
    features: str
    value: float
    settings: dict[str, Any]


@dataclass
class Report:
    """What was measured.

    Attributes:
        rows: dicts with ``measure``, ``features`` (what was measured), ``value`` and ``settings``.
        pictures: paths of the pictures and pages that were written.
        about: dict of what was evaluated: numbers of images, fingerprints, how many test images
            are among the training images, seconds.
        notes: sentences that belong to the rows.

    Example:
    ```python
    report = evaluate(model, train, test, measures=["knn"], k=5)
    print(report, report.value("kNN", "embedding"))
    ```
    """

    rows: list[Row] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, measure: str, features: str, value: float, **settings: Any) -> None:
        """Add a row."""
        row: Row = {
            "measure": measure,
            "features": features,
            "value": float(value),
            "settings": settings,
        }
        self.rows.append(row)

    def row(self, measure: str, features: str) -> Row:
        """The row with this measure and these features.

        Raises:
            ValueError: there is no such row.
        """
        found = [r for r in self.rows if (r["measure"], r["features"]) == (measure, features)]
        require(
            len(found) == 1,
            f"measure {measure!r} of {features!r}",
            "one of " + ", ".join(f"{r['measure']!r} of {r['features']!r}" for r in self.rows),
        )
        return found[0]

    def value(self, measure: str, features: str) -> float:
        """The value of the row with this measure and these features; see ``row``."""
        return self.row(measure, features)["value"]

    def __str__(self) -> str:
        cells = [
            (row["measure"], row["features"], f"{row['value']:.3f}", _settings(row))
            for row in self.rows
        ]
        return "\n".join([text_table(COLUMNS, cells), *self.notes])

    def to_csv(self) -> str:
        """The rows as CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r["measure"], r["features"], r["value"], _settings(r)) for r in self.rows)
        return text.getvalue()

    def to_json(self) -> str:
        """Rows, notes, pictures and what was evaluated, as JSON."""
        pictures = [str(path) for path in self.pictures]
        found = {"about": self.about, "rows": self.rows, "notes": self.notes, "pictures": pictures}
        return json.dumps(found, indent=1)

    def save(self, folder: str | os.PathLike, name: str = "report") -> None:
        """Write ``report.txt``, ``report.csv`` and ``report.json``, or files of another name."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"txt": f"{self}\n", "csv": self.to_csv(), "json": self.to_json() + "\n"}
        for suffix, text in texts.items():
            (folder / f"{name}.{suffix}").write_text(text, encoding="utf-8")


def text_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a header as lines of text, in columns.

    Example: ``print(evaluation.text_table(("file", "distance"), [("a.jpg", 0.1)]))``
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _settings(row: Row) -> str:
    return ", ".join(f"{name}={value}" for name, value in row["settings"].items())
