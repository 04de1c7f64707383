"""Trainings that are killed again and again, and end as one that is not."""

import itertools
import json
import queue
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.faults.points import Fault
from instdisc_core.callbacks import read_log
from instdisc_core.checkpoints import CheckpointFolder
from instdisc_core.files import PART

LONGEST = 300  # seconds; a start that takes longer hangs
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)

# Where to kill: for each kind, the faults of a training by ``fit``, and of one by a recipe.
SMALL = {
    "between two steps": [
        "kill:step:1:0",
        "kill:step:3:0",
        "kill:step:7:0",
        "power:step:5:0",
    ],
    "while a checkpoint is written": [
        "kill:after mkdir new checkpoint:1:0",
        "kill:before fsync new model.weights.h5:1:0",
        "kill:before replace model.weights.h5:2:0",
        "power:after replace model.weights.h5:1:0",
        "kill:after open state.npz:2:0",
        "power:after open checkpoint.json:1:0",
        "power:before fsync state.npz:2:0",
        "kill:before fsync checkpoint.json:1:0",
        "power:before rename checkpoint:2:0",
        "power:after rename checkpoint:2:0",
        "kill:before fsync checkpoints:1:0",
    ],
    "in the middle of a file": [
        "cut:after mkdir new checkpoint:1:20000",
        "cut:after mkdir new checkpoint:2:60000",
        "cut:before open state.npz:1:1500",
        "cut:before open checkpoint.json:2:400",
        "cut:before open new log.csv:1:100",
    ],
    "between log and checkpoint": [
        "kill:epoch:1:0",
        "kill:before replace log.csv:1:0",
        "power:after replace log.csv:1:0",
        "kill:after fsync folder:1:0",
    ],
    "while an old checkpoint is removed": [
        "kill:before rename old checkpoint:1:0",
        "power:after rename old checkpoint:1:0",
        "kill:after unlink state.npz:1:0",
        "kill:before rmdir old checkpoint:1:0",
    ],
}
RANDOM = "at a random time"
RECIPE = {
    "while recipe.json is written": [
        "kill:after open new recipe.json:1:0",
        "cut:before open new recipe.json:1:200",
        "power:after replace recipe.json:1:0",
    ],
    "while model.keras is written": [
        "kill:end:1:0",
        "cut:end:1:30000",
        "kill:before fsync new model.keras:1:0",
        "power:before replace model.keras:1:0",
        "power:after replace model.keras:1:0",
    ],
}
# Disks that are full: nothing may be lost, and the error must say so.
FULL_SMALL = [
    "full:after mkdir new checkpoint:1:20000",
    "full:after mkdir new checkpoint:2:60000",
    "full:before open state.npz:2:1500",
    "full:before open checkpoint.json:1:400",
    "full:before open new log.csv:1:100",
]
FULL_RECIPE = ["full:before open new recipe.json:1:200", "full:end:1:30000"]
FULL = re.compile(r"File too large|errno = 27")


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: its exit status; negative, the signal that killed it.
        printed: what it printed in the end: variables and points; None unless it came so far.
        errors: what it wrote to the standard error.
        killed: whether it was killed from outside, or killed itself, as the fault wanted.
    """

    code: int
    printed: dict[str, Any] | None
    errors: str

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that a fault sends."""
        return self.code in KILLED

    @property
    def reason(self) -> str:
        """In one line."""
        return f"exit status {self.code}: {self.errors.strip().splitlines()[-1:]}"


class Training:
    """A process that trains in a folder.

    Args:
        mode: ``"small"``, ``"eager"`` or ``"recipe"``.
        folder: of the run.
        fault: that it meets, or None.
    """

    def __init__(self, mode: str, folder: Path, fault: Fault | None = None):
        command = [sys.executable, "-m", "benchmarks.faults.worker", mode, str(folder)]
        if fault:
            command += ["--fault", str(fault)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = subprocess.Popen(command, text=True, **pipes)
        self._lines: queue.Queue = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for(self, line: str) -> bool:
        """Wait until it prints this line; False if it ended without."""
        deadline = time.monotonic() + LONGEST
        while (found := self._next(deadline)) is not None:
            if found == line:
                return True
        return False

    def go_on(self):
        """Let it continue after a fault that waits."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> Ended:
        """Wait until it ends; kill it if it hangs."""
        try:
            code = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = 124  # never taken for a kill that was planned
        for thread in self._threads:
            thread.join()
        lines = list(self._lines.queue)
        said = [line for line in lines if line and line.startswith("{")]
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        return Ended(code, json.loads(said[-1]) if said else None, "".join(self._errors))

    def _next(self, deadline):
        try:
            return self._lines.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return None

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self):
        self._errors.extend(self.process.stderr)


def run(mode: str, folder: Path, fault: Fault | None = None) -> Ended:
    """Start a training, and wait until it ends."""
    return Training(mode, folder, fault).end()


def whole(mode: str, folder: Path) -> dict[str, Any]:
    """What a run that nothing interrupts leaves behind; see ``left``."""
    ended = run(mode, folder)
    if ended.printed is None:
        raise RuntimeError(f"the undisturbed run failed: {ended.reason}\n{ended.errors}")
    return {**left(folder, ended), "points": ended.printed["points"]}


def left(folder: Path, ended: Ended) -> dict[str, Any]:
    """What a finished run leaves behind: variables, files, and the newest checkpoint."""
    files = {name: folder / name for name in ("log.csv", "recipe.json")}
    contents = {name: path.read_bytes() for name, path in files.items() if path.exists()}
    newest = CheckpointFolder(folder / "checkpoints", 1).newest()
    return {
        "variables": ended.printed["variables"],
        "contents": contents,
        "newest": newest and (newest[0].name, newest[1]["iterations"], newest[1]["data"]),
        "unfinished": [path.name for path in folder.rglob(f"{PART}*")],
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The names of the variables and files in which two runs differ."""
    different = []
    for part in ("variables", "contents"):
        ours, theirs = found[part], expected[part]
        different += [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
    return different + [k for k in ("newest", "unfinished") if found[k] != expected[k]]


def chain(mode: str, folder: Path, faults: list[tuple[str, Fault]], expected) -> list[dict]:
    """Start the same command again and again, each time with the next fault, then without.

    A run that ends before its fault comes is compared too, and that fault met in a new folder.

    Args:
        mode: see ``Training``.
        folder: below which each run gets its own.
        faults: each with its kind.
        expected: what the undisturbed run left behind.

    Returns:
        For each kill its kind, the fault, and how many differences the run had in the end.
    """
    kills, waiting, number = [], list(faults), 0
    while True:
        number += 1
        place, here = folder / str(number), []
        while waiting:
            kind, fault = waiting[0]
            ended = run(mode, place, fault)
            if not ended.killed:
                break
            here.append({"kind": kind, "fault": str(fault)})
            waiting.pop(0)
        else:
            ended = run(mode, place)
        found = _found(place, ended, expected)
        kills += [{**kill, "differences": found} for kill in here]
        if not waiting:
            return kills
        if not here:
            raise RuntimeError(f"{waiting[0][1]} was never met: {ended.reason}")


def random_kills(folder: Path, count: int, seed: int, seconds: float, expected) -> list[dict]:
    """Kill the training at random times after it has begun, until ``count`` kills are counted."""
    rng, kills, number = random.Random(seed), [], 0
    while len(kills) < count:
        number += 1
        place, here = folder / str(number), []
        while len(kills) + len(here) < count:
            training = Training("small", place)
            training.wait_for("training")
            time.sleep(rng.uniform(0, seconds))
            training.process.kill()
            ended = training.end()
            if not ended.killed:
                break
            here.append({"kind": RANDOM, "fault": "kill"})
        else:
            ended = run("small", place)
        found = _found(place, ended, expected)
        kills += [{**kill, "differences": found} for kill in here]
    return kills


def full_disks(mode: str, folder: Path, faults: list[Fault], expected) -> list[dict]:
    """Let the disk be full at several places of a run; it must fail, and lose nothing.

    Returns:
        For each: whether the error names the cause, whether what was there before is still there,
        and how many differences the run had in the end.
    """
    met = []
    for fault in faults:
        before = _kept(folder)
        ended = run(mode, folder, fault)
        named = ended.code != 0 and bool(FULL.search(ended.errors))
        met.append({"fault": str(fault), "named": named, "intact": _kept(folder) >= before})
    found = _found(folder, run(mode, folder), expected)
    return [{**one, "differences": found} for one in met]


def second_process(folder: Path, expected) -> dict[str, Any]:
    """Start the command while it runs already: the second names the first, which ends as ever."""
    first = Training("small", folder, Fault("wait", "step", 3))
    if not first.wait_for("waiting"):
        raise RuntimeError(f"the first process ended: {first.end().reason}")
    second = run("small", folder)
    first.go_on()
    return {
        "named": second.code == 1 and f"process {first.process.pid} on" in second.errors,
        "differences": _found(folder, first.end(), expected),
    }


def measure(folder: Path, seed: int = 0, times: int = 6, recipe: bool = True) -> dict[str, Any]:
    """All of it.

    Args:
        folder: for the runs, empty.
        seed: of the random times.
        times: how many kills at random times.
        recipe: train by a recipe too.
    """
    start = time.monotonic()
    expected = {"small": whole("small", folder / "whole")}
    seconds = time.monotonic() - start  # more than the training takes, so that some kills miss
    if recipe:
        expected["recipe"] = whole("recipe", folder / "whole-recipe")
    small, own = ([(kind, Fault.parse(f)) for kind in p for f in p[kind]] for p in (SMALL, RECIPE))
    jobs = [
        lambda: chain("small", folder / "even", small[::2], expected["small"]),
        lambda: chain("small", folder / "odd", small[1::2], expected["small"]),
        lambda: random_kills(folder / "random", times, seed, seconds / 4, expected["small"]),
    ]
    full = [
        lambda: full_disks("small", folder / "full", _parsed(FULL_SMALL), expected["small"]),
    ]
    if recipe:
        jobs.append(lambda: chain("recipe", folder / "recipe", own, expected["recipe"]))
        full.append(
            lambda: full_disks(
                "recipe", folder / "whole-recipe", _parsed(FULL_RECIPE[1:]), expected["recipe"]
            )
        )
    with ThreadPoolExecutor(harness.cores()) as executor:
        killed, filled = (
            [job.result() for job in [executor.submit(f) for f in functions]]
            for functions in (jobs, full)
        )
    return {
        "kills": [*itertools.chain(*killed)],
        "full_disks": [*itertools.chain(*filled)],
        "second_process": second_process(folder / "second", expected["small"]),
    }


def _found(folder, ended, expected):
    """The differences of a run that ended; a run that failed is one."""
    if ended.printed is None:
        return [ended.reason]
    return differences(left(folder, ended), expected)


def _kept(folder):
    """What no fault may lose, such that more compares as greater.

    The position of the newest checkpoint, of which none may be damaged; the epochs of the log; and
    the bytes of the files that a recipe writes.
    """
    with warnings.catch_warnings(action="error"):
        newest = CheckpointFolder(folder / "checkpoints", 1).newest()
    position = newest and (newest[1]["epoch"], newest[1]["step"])
    files = [folder / name for name in ("recipe.json", "model.keras")]
    contents = [path.read_bytes() for path in files if path.exists()]
    return [position or (0, 0), len(read_log(folder / "log.csv")), contents]


def _parsed(faults):
    return [Fault.parse(fault) for fault in faults]
