"""One process at a time in a folder."""

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from instdisc_core.validation import require

HOLDER = "process.json"


class FolderLock:
    """Locks a folder for this process; the operating system unlocks it when the process ends.

    Args:
        folder: its path; it is created if it does not exist.

    Raises:
        ValueError: on entering, if another process, or another run in this process, has locked the
            folder. The message names the process.

    Example:
    ```python
    from instdisc_core.checkpoints import FolderLock

    with FolderLock("runs/photos"):
        model.fit(photos.batches(10, seed=0), epochs=1)
    ```
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / ".lock")

    def __enter__(self) -> "FolderLock":
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            held = True
        else:
            held = False
        require(
            not held,
            f"{str(self.folder)!r}, which {self._holder()} is using",
            "a folder that no other run uses",
            "Wait for it to end, stop it, or choose another folder.",
        )
        about = {"pid": os.getpid(), "host": socket.gethostname()}
        about |= {"since": time.strftime("%Y-%m-%d %H:%M:%S"), "command": " ".join(sys.argv)}
        with suppress(OSError):  # the lock is held; the file only names its holder
            (self.folder / HOLDER).write_text(json.dumps(about) + "\n", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            (self.folder / HOLDER).unlink()
        self._lock.release()

    def _holder(self) -> str:
        """The process that has locked the folder, in words."""
        try:
            about = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            return "process {pid} on {host}, since {since}, {command!r},".format(**about)
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
