"""Reads damaged files and says what came of each; ``benchmarks.faults.files`` starts it.

    KERAS_BACKEND=torch python -m benchmarks.faults.reader log:0 log:1 bomb

It is a process of its own because a file can end it. For each file it prints one line of JSON.
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.hostile import HOSTILE, Hostile
from benchmarks.faults.judge import Loader, judge
from benchmarks.faults.loaders import LOADERS
from benchmarks.faults.mutations import mutated

ATTACKS = {attack.__name__: attack for attack in HOSTILE}


def damaged(loader: Loader, folder: Path, seed: str) -> tuple[str, str]:
    """Write the loader's files, one of them with a damage.

    Args:
        loader: whose files.
        folder: to write to, empty.
        seed: says which file, and which damage.

    Returns:
        Which damage, and the name of the file.
    """
    target = loader.targets[sum(seed.encode()) % len(loader.targets)]
    kind, content = mutated(loader.files[target], seed)
    for name, undamaged in loader.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if name == target else undamaged)
    return kind, target


def reporter() -> Callable:
    """A function that prints what came of a file; whatever else is printed goes elsewhere."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def report(job, mutation, loader, verdict):
        line = {"job": job, "mutation": mutation, "loader": loader.name, **verdict._asdict()}
        print(json.dumps(line), file=output, flush=True)

    return report


def main():
    """Judge all files that are named."""
    report = reporter()
    with tempfile.TemporaryDirectory() as place:
        folders = (Path(place, str(number)) for number in itertools.count())
        for key, jobs in itertools.groupby(sys.argv[1:], lambda job: job.partition(":")[0]):
            (home := next(folders)).mkdir()
            if key in ATTACKS:
                loader = Hostile(home, ATTACKS[key])
                report(key, "by hand", loader, judge(loader, home, ""))
                continue
            loader = LOADERS[key][1](home)
            for job in jobs:
                (folder := next(folders)).mkdir()
                kind, target = damaged(loader, folder, job)
                report(job, kind, loader, judge(loader, folder, Path(target).name))


if __name__ == "__main__":
    main()
