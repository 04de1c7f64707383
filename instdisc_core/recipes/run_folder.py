"""The folder that a run writes to: one run in it, and one process at a time."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instdisc_core.checkpoints import FolderLock
from instdisc_core.data import Manifest
from instdisc_core.files import remove_parts, replacing
from instdisc_core.recipes.settings import Settings
from instdisc_core.validation import require

RECORD = "recipe.json"


@contextmanager
def run_folder(
    output: Path, settings: Settings, seed: int | None, manifest: Manifest
) -> Iterator[None]:
    """Hold the folder for this run.

    Raises:
        ValueError: the folder holds another run, or another process is using it.
    """
    with FolderLock(output):
        remove_parts(output)
        claim(output, settings, seed, manifest)
        yield


def stored_settings(output: Path) -> dict[str, Any] | None:
    """The settings of the run that the folder is for; None if no run was begun there.

    Raises:
        ValueError: what is written there is damaged.
    """
    stored = _read(output / RECORD)
    if stored is None:
        return None
    recipe = stored.get("recipe")
    settings = dict(recipe) if isinstance(recipe, dict) else {}
    fields = {field.name for field in dataclasses.fields(Settings)}
    odd = sorted(fields ^ set(settings))
    require(
        not odd,
        f"{output / RECORD}, whose recipe lacks or adds {', '.join(odd)}",
        "a recipe of this version",
        "It is damaged, or of another version: choose another folder.",
    )
    return {name: _as_tuples(value) for name, value in settings.items()}


def claim(output: Path, settings: Settings, seed: int | None, manifest: Manifest) -> None:
    """Write down which run the folder is for.

    Args:
        output: the folder.
        settings: of the training.
        seed: of everything that is drawn.
        manifest: of the training images.

    Raises:
        ValueError: the folder holds another run, or what is written there is damaged.
    """
    path = output / RECORD
    run = {"recipe": settings.to_dict(), "seed": seed, "data": manifest.fingerprint}
    stored = _read(path)
    if stored is None:
        with replacing(path) as part:
            part.write_text(json.dumps(run, indent=1) + "\n")
        return
    other = [name for name in run if run[name] != stored.get(name)]
    mine, theirs = settings.to_dict(), stored.get("recipe")
    if isinstance(theirs, dict) and mine != theirs:
        names = sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n))
        other[0] = f"recipe ({', '.join(names)})"
    require(
        not other,
        f"output={str(output)!r}, that holds another run: its {', '.join(other)} differs",
        "an empty folder, or the one of the same recipe, seed and data",
        "Choose another folder, or remove this one.",
    )


def _read(path: Path) -> dict[str, Any] | None:
    """What ``claim`` wrote; None if there is no such file."""
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"Received: {path}, which is damaged ({error}). Expected what an earlier run wrote "
            "there. Remove the file if this is the same recipe, seed and data set."
        ) from error


def _as_tuples(value: Any) -> Any:
    """JSON's lists as the tuples that settings have."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
