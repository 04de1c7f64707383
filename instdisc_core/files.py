"""Replaces a file as a whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part-"  # how the name of a file begins while it is being written


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path to write to; when the block ends, that file replaces ``path``.

    It is flushed to the disk first. If the block raises, or the process is killed, or the disk is
    full, ``path`` is unchanged.

    Args:
        path: of the file to replace or to create, in a folder that exists.

    Yields:
        The path to write to, in the same folder and with the same suffix.

    Example:
    ```python
    from instdisc_core.files import replacing

    with replacing("notes.txt") as part:
        part.write_text("all or nothing")
    ```
    """
    path = Path(path).resolve()  # a link stays one
    part = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        yield part
        flush(part)
        os.replace(part, path)
        flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: str | os.PathLike, name: str = "") -> None:
    """Remove unfinished files that killed processes left in a folder.

    Only the process that has locked the folder may call this.

    Args:
        folder: its path.
        name: of the file that was to be replaced; ``""`` is all.

    Example:
    ```python
    from instdisc_core.files import remove_parts

    remove_parts("photos")
    ```
    """
    for path in Path(folder).glob(f"{PART}*"):
        if name not in ("", path.name.removeprefix(PART).partition("-")[2]):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def flush(path: str | os.PathLike) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk.

    Args:
        path: of the file or folder.

    Example:
    ```python
    from instdisc_core.files import flush

    flush("photos")
    ```
    """
    is_folder = os.path.isdir(path)
    if is_folder and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
