"""Files that are damaged, each read by the loader that it is for."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import harness
from benchmarks.faults.loaders import LOADERS
from benchmarks.faults.reader import ATTACKS

READER = (sys.executable, "-m", "benchmarks.faults.reader")
LONGEST = 120  # seconds; a file that takes longer hangs
FAULTS = ("wrong", "crash")


def jobs(share: float = 1.0) -> list[str]:
    """The names of all files: the loader and the seed of the damage, or what was made by hand.

    Args:
        share: of each loader's files, at least one.
    """
    counts = {key: max(1, round(share * count)) for key, (count, _) in LOADERS.items()}
    return [f"{key}:{i}" for key, count in counts.items() for i in range(count)] + list(ATTACKS)


def verdicts(
    wanted: Sequence[str], reader: Sequence[str] = READER, longest: float = LONGEST
) -> list[dict[str, Any]]:
    """What came of each file; where it ended the reader, or hung it, that is a crash.

    Args:
        wanted: names of files.
        reader: the command that reads them; see ``benchmarks.faults.reader``.
        longest: seconds to wait for one file.
    """
    found: list[dict[str, Any]] = []
    while len(found) < len(wanted):
        left = wanted[len(found) :]
        lines, ended = _read([*reader, *left], longest)
        found += [json.loads(line) for line in lines]
        if len(lines) < len(left):
            crash = {"kind": "crash", "detail": ended, "executions": []}
            lost = left[len(lines)]
            found.append({"job": lost, "mutation": "?", "loader": lost.partition(":")[0], **crash})
    return found


def _read(command, longest):
    """What a process reports until it ends, or is silent for too long; and how it ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines: queue.Queue = queue.Queue()

    def listen():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    errors: list[str] = []
    threads = [
        threading.Thread(target=listen),
        threading.Thread(target=lambda: errors.extend(process.stderr)),
    ]
    for thread in threads:
        thread.start()
    said, ended = [], ""
    try:
        while (line := lines.get(timeout=longest)) is not None:
            said.append(line)
    except queue.Empty:
        ended = f"it hung for {longest:g} seconds"
        process.kill()
    code = process.wait()
    for thread in threads:
        thread.join()
    process.stdout.close()
    process.stderr.close()
    if code > 0:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed:\n{''.join(errors)[-3000:]}")
    if code < 0 and not ended:
        ended = f"the process was ended by {signal.Signals(-code).name}"
    return said, ended


def measure(share: float = 1.0) -> dict[str, Any]:
    """Read all files, by as many processes as there are cores.

    Args:
        share: see ``jobs``.
    """
    wanted, cores = jobs(share), harness.cores()
    with ThreadPoolExecutor(cores) as executor:
        parts = list(executor.map(verdicts, [wanted[i::cores] for i in range(cores)]))
    found = [verdict for part in parts for verdict in part]
    return {"files": len(found), **summary(found)}


def summary(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of verdicts by loader and by damage, and each fault."""
    by_loader: dict[str, dict[str, int]] = {}
    by_mutation: dict[str, dict[str, int]] = {}
    for one in found:
        for counts, key in ((by_loader, one["loader"]), (by_mutation, one["mutation"])):
            kinds = counts.setdefault(key, {})
            kinds[one["kind"]] = kinds.get(one["kind"], 0) + 1
    return {
        "by_loader": by_loader,
        "by_mutation": by_mutation,
        "faults": [one for one in found if one["kind"] in FAULTS or one["executions"]],
    }
