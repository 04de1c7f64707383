"""The bytes of a file that may be anything: hostile, endless, or not a regular file."""

import hashlib
import os
import stat
from pathlib import Path

# Do not wait for the writer of a pipe; on Windows, do not convert line ends.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def status(path: Path, max_bytes: int) -> os.stat_result:
    """Size, time and type of a regular file; links are followed.

    Raises:
        ValueError: it is not there, not a regular file, or larger than ``max_bytes``. The message
            is the reason alone.
    """
    try:
        return _regular(os.stat(path), max_bytes)
    except OSError as error:
        raise ValueError(reason(error)) from error


def contents(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """The bytes of a regular file, and its status before they were read.

    It waits for no other process, and reads no more than ``max_bytes``.

    Raises:
        ValueError: as ``status``; or the file cannot be read, or changes while it is read.
    """
    status(path, max_bytes)  # first, because opening a device can start it
    try:
        with open(os.open(path, FLAGS), "rb") as file:
            opened = _regular(os.fstat(file.fileno()), max_bytes)
            data = file.read(opened.st_size + 1)
    except (OSError, MemoryError) as error:
        raise ValueError(reason(error)) from error
    if len(data) != opened.st_size:
        raise ValueError("its size changes while it is read")
    return data, opened


def digest(data: bytes | memoryview) -> str:
    """32 hexadecimal digits for the bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def reason(error: BaseException) -> str:
    """What went wrong: the type of an exception and its text."""
    said = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {said or 'no details'}"


def _regular(found: os.stat_result, max_bytes: int) -> os.stat_result:
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"{KINDS.get(kind, 'something else')}, not a regular file")
    if found.st_size > max_bytes:
        raise ValueError(f"{found.st_size} bytes, more than max_bytes={max_bytes}")
    return found
