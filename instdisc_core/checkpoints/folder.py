"""A folder of checkpoints: each is a folder, written under another name, flushed and renamed."""

import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from instdisc_core.checkpoints.record import digest_of, read_record, write_record
from instdisc_core.checkpoints.seal import check_seal
from instdisc_core.files import PART, flush
from instdisc_core.validation import require

ABOUT = "checkpoint.json"
WEIGHTS = "model.weights.h5"
STATE = "state.npz"
NAME = re.compile(r"epoch-(\d+)-step-(\d+)")


class Position(NamedTuple):
    """How far a training is: the number of complete epochs, and of steps in the next one."""

    epoch: int
    step: int


class CheckpointFolder:
    """The last checkpoints of a training.

    Args:
        folder: its path.
        keep: how many checkpoints are kept.

    Example:
    ```python
    from instdisc_core.checkpoints import CheckpointFolder

    assert CheckpointFolder("no-run-yet", keep=3).newest() is None
    ```
    """

    def __init__(self, folder: str | os.PathLike, keep: int) -> None:
        self.folder, self.keep = Path(folder), keep

    def write(self, position: Position, fill: Callable[[Path], dict[str, Any]]) -> Path:
        """Add a checkpoint. Remove old ones beyond ``keep``, and all of later positions.

        Args:
            position: how far the training is.
            fill: writes ``model.weights.h5``, with a seal, and ``state.npz`` into the folder that
                it gets, and returns the content of ``checkpoint.json``.

        Raises:
            OSError: for example, the disk is full. Earlier checkpoints are still there.
        """
        name = "epoch-{:05d}-step-{:07d}".format(*position)
        part = self._aside(name)
        part.mkdir(parents=True)
        try:
            about = {**position._asdict(), **fill(part)}
            about["weights"] = check_seal(part / WEIGHTS)
            about["state"] = digest_of((part / STATE).read_bytes())
            write_record(part / ABOUT, about)
            for file in (WEIGHTS, STATE, ABOUT):
                flush(part / file)
            flush(part)
            if (self.folder / name).exists():  # damaged: the run continued from an older one
                self._remove(self.folder / name)
            os.rename(part, self.folder / name)
            flush(self.folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        paths = self.paths()
        end = paths.index(self.folder / name) + 1  # later ones are damaged: this run passed them
        for old in [*paths[: max(0, end - self.keep)], *paths[end:]]:
            self._remove(old)
        return self.folder / name

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest undamaged checkpoint and the content of its ``checkpoint.json``.

        Returns:
            Its path and content; None if there is no checkpoint.

        Raises:
            ValueError: there are checkpoints, and all are damaged. The message names them.
        """
        damaged = {}
        for path in reversed(self.paths()):
            try:
                about = _checked(path)
            except (OSError, ValueError) as error:
                damaged[path.name] = str(error)
                continue
            if damaged:
                warnings.warn(
                    f"Damaged checkpoints in {self.folder}: {_reasons(damaged)}. "
                    f"Training continues from {path.name}.",
                    stacklevel=2,
                )
            return path, about
        require(
            not damaged,
            f"{self.folder}, in which every checkpoint is damaged: {_reasons(damaged)}",
            "at least one that is undamaged",
            "Restore one from a copy, or remove the folder to train from the start.",
        )
        return None

    def at(self, name: str) -> tuple[Path, dict[str, Any]]:
        """The path of the checkpoint of this name, and the content of its ``checkpoint.json``.

        Raises:
            ValueError: it is damaged.
            OSError: it is not there; several processes need one file system.
        """
        return self.folder / name, read_record(self.folder / name / ABOUT)

    def paths(self) -> list[Path]:
        """The folders of all checkpoints, the oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        named = [(match, path) for path in found if (match := NAME.fullmatch(path.name))]
        return [path for match, path in sorted(named, key=lambda x: tuple(map(int, x[0].groups())))]

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint. It is renamed first: a kill leaves no half of one."""
        aside = self._aside(f"old-{path.name}")
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _aside(self, name: str) -> Path:
        return self.folder / f"{PART}{os.getpid()}-{name}"


def _checked(path: Path) -> dict[str, Any]:
    """The content of ``ABOUT``; raise unless all files of a checkpoint are as written."""
    about = read_record(path / ABOUT)
    weights, state = check_seal(path / WEIGHTS), digest_of((path / STATE).read_bytes())
    for name, found in (("weights", weights), ("state", state)):
        require(about[name] == found, f"{name} of another checkpoint", f"those that {ABOUT} names")
    return about


def _reasons(damaged: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in damaged.items())
