"""Where a command may write: not among the photos, and not over what another command wrote."""

import os
from pathlib import Path

from instdisc_core.data.names import printable
from instdisc_core.validation import require

OWN = {  # what a training and an index write
    "checkpoints", "found.json", "index", "log.csv", "map.npz", "model.keras", "photos.csv",
    "recipe.json", "verdict.csv", "verdict.json", "verdict.txt",
}  # fmt: skip


def check_outside(output: Path, photos: Path) -> None:
    """Raise if a folder to write to is among the photos, which would then hold its pictures."""
    require(
        not output.resolve().is_relative_to(photos.resolve()),
        f"{printable(str(output))}, which is inside the folder of the photos",
        "a folder outside of it",
        "Choose one with --output.",
    )


def check_output(output: str, found: Path, photos: str | os.PathLike | None) -> None:
    """Raise if a file or folder to write to is among the photos, or what another command wrote.

    Args:
        output: its path.
        found: the folder of a training or an index.
        photos: their folder; None if it is not known.
    """
    require(output != "", "--output without a path", "the path of a file or folder")
    place, own = Path(output).resolve(), found.resolve()
    if photos is not None and not place.suffix:  # a folder
        check_outside(place, Path(photos))
    inside = place.relative_to(own).parts[:1] if place.is_relative_to(own) else ("another",)
    require(
        bool(inside) and inside[0] not in OWN,
        f"{printable(output)}, which holds what a training or an index wrote",
        "a path at which nothing else is",
        "Choose another one with --output.",
    )
