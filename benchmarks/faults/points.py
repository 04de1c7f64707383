"""The points of a training at which a fault can happen, and the faults."""

import builtins
import io
import os
import re
import resource
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from instdisc_core.files import PART

WATCHED = {os: ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")}
WATCHED |= {io: ("open",), builtins: ("open",)}  # where a file is opened to be written
ACTIONS = ("kill", "power", "cut", "full", "wait")


class Fault(NamedTuple):
    """What happens to a process, and when.

    Attributes:
        action: ``"kill"``: SIGKILL. ``"power"``: SIGKILL, and what was written but not flushed is
            cut in half, as a power failure can leave it. ``"cut"``: from here on the process is
            killed in the middle of the first write that makes a file longer than ``size`` bytes.
            ``"full"``: from here on such a write fails, as on a full disk. ``"wait"``: the process
            says so and waits for a line.
        point: where; see ``Points``.
        count: which time that point is reached, from 1.
        size: in bytes.
    """

    action: str
    point: str
    count: int = 1
    size: int = 0

    def __str__(self):
        return ":".join(str(part) for part in self)

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Undo ``str``."""
        action, point, count, size = text.split(":")
        if action not in ACTIONS:
            raise ValueError(f"Received: {text!r}. Expected an action of {ACTIONS}.")
        return cls(action, point, int(count), int(size))


class Points:
    """Counts how often each point is reached, and lets the fault happen at its point.

    Points are named: ``"before fsync state.npz"``, ``"after rename checkpoint"``. Every call by
    which Python opens a file in the folder for writing, flushes, renames or removes it is two
    points, before and after it. The training adds points of its own by ``reach``.

    Args:
        folder: of the run.
        fault: that is to happen, or None.
    """

    def __init__(self, folder, fault: Fault | None = None):
        self.folder, self.fault = Path(folder).resolve(), fault
        self.counts: Counter = Counter()
        self._flushed = {_identity(path) for path in self.folder.rglob("*")}

    def watch(self):
        """Replace the functions of ``WATCHED`` by ones that reach points."""
        for module, names in WATCHED.items():
            for name in names:
                setattr(module, name, self._watched(name, getattr(module, name)))

    def reach(self, point: str):
        """Count, and act if this is the fault's point."""
        self.counts[point] += 1
        if self.fault and (point, self.counts[point]) == self.fault[1:3]:
            getattr(self, f"_{self.fault.action}")()

    def _watched(self, name, function):
        def watched(target, *args, **kwargs):
            changed = args[0] if name in ("rename", "replace") else target
            path = _path(changed, kwargs.get("dir_fd"))
            reads = name == "open" and not _writes(*args, **kwargs)
            if reads or not path.is_relative_to(self.folder):
                return function(target, *args, **kwargs)
            self.reach(f"before {name} {self._label(path)}")
            result = function(target, *args, **kwargs)
            if name == "fsync":
                self._flushed.add(_identity(path))
            self.reach(f"after {name} {self._label(path)}")
            return result

        return watched

    def _kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def _power(self):
        for path in self.folder.rglob("*"):
            if path.is_file() and _identity(path) not in self._flushed:
                os.truncate(path, path.stat().st_size // 2)
        self._kill()

    def _cut(self):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        self._full()

    def _full(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.fault.size, resource.RLIM_INFINITY))

    def _wait(self):
        print("waiting", flush=True)
        sys.stdin.readline()

    def _label(self, path):
        """The name of a file without what differs from run to run."""
        if path == self.folder:
            return "folder"
        name = re.sub(r"epoch-\d+-step-\d+", "checkpoint", path.name)
        return re.sub(rf"^{re.escape(PART)}\d+-", "new ", name).replace("new old-", "old ")


def _writes(mode="r", *args, **kwargs):
    """Whether ``open`` with these arguments opens a file for writing."""
    return bool(set("wax+") & set(mode))


def _path(target, dir_fd):
    """The absolute path that a call names, by a path or by an open file."""
    if isinstance(target, int):
        return Path(os.readlink(f"/proc/self/fd/{target}"))
    parent = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    return Path(parent, os.fsdecode(target))


def _identity(path):
    """Tells a file and its content apart from what they were before a write."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
