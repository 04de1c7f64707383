"""Rows on the device, in the host's memory and in a file; and a bank of 100 million rows.

    KERAS_BACKEND=torch python -m benchmarks.storage
    KERAS_BACKEND=torch python -m benchmarks.storage --large 100000000 --folder /somewhere

The second creates a file of 13 GB, opens it in another process, updates it and searches it, and
stores what it measured as `results/storage-large-...`; the file is removed at the end.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np

from benchmarks import batches, frameworks, harness, names
from instdisc_core import MemoryBank
from instdisc_core.testing import strategies

TEMPERATURE = 0.07
STEPS = 20  # updates that are timed together


def compared(args, folder):
    """Seconds of each operation, by dtype, operation and storage."""
    rng = np.random.default_rng(0)
    n, d, b = args.num_instances, args.embedding_dim, args.batch_size
    features = keras.ops.convert_to_tensor(strategies.unit_rows(rng, b, d))
    indices = batches.instances(rng, n, b)
    negatives = rng.integers(0, n, (b, args.num_negatives)).astype("int32")
    negatives = keras.ops.convert_to_tensor(negatives)
    found = {}
    for dtype in names.STORED_DTYPES:
        places = {
            names.ON_DEVICE: None,
            names.ON_HOST: "host",
            names.IN_FILE: folder / f"{dtype}.rows",
        }
        banks = {
            place: MemoryBank(n, d, dtype=dtype, seed=0, storage=storage)
            for place, storage in places.items()
        }

        def updates(bank):
            for _ in range(STEPS):
                bank.update(indices, features)

        operations = {
            names.ATTEND: lambda bank: bank.attend(features, TEMPERATURE),
            names.GATHER: lambda bank: bank.scores(features, negatives),
            names.SEARCH_MANY: lambda bank: bank.search(features, k=10),
            names.SEARCH_ONE: lambda bank: bank.search(features[:1], k=10),
            names.UPDATES: updates,
        }
        found[dtype] = {
            name: harness.alternate(
                {place: partial(run, bank) for place, bank in banks.items()}, args.rounds, 1
            )
            for name, run in operations.items()
        }
        harness.table(
            (dtype, *(f"{place}, ms" for place in places)),
            [
                (name, *(f"{1e3 * seconds[place]['median']:.1f}" for place in places))
                for name, seconds in found[dtype].items()
            ],
        )
    return found


class Clock:
    """Seconds, and for how many of them a processor worked for this process."""

    def __init__(self):
        self.seconds, self.processor_seconds = {}, {}
        self.start()

    def start(self):
        """Begin again."""
        self._start = time.perf_counter(), time.process_time()

    def stop(self, name):
        """Keep what has passed under a name."""
        self.seconds[name] = time.perf_counter() - self._start[0]
        self.processor_seconds[name] = time.process_time() - self._start[1]
        print(f"{name}: {self.seconds[name]:.3g} s", file=sys.stderr, flush=True)


def memory():
    """This process's memory in bytes: all of it, and what is not a file's pages."""
    return {"resident": harness.resident_bytes(), "anonymous": harness.resident_bytes("RssAnon")}


def create(args, path):
    """Create the file."""
    clock = Clock()
    bank = MemoryBank(args.large, args.embedding_dim, dtype=args.dtype, seed=0, storage=path)
    clock.stop("create")
    return clock, bank


def use(args, path):
    """Open the file, read, update, and search it: seconds of the first time and of a later one."""
    clock = Clock()
    bank = MemoryBank(args.large, args.embedding_dim, dtype=args.dtype, seed=0, storage=path)
    clock.stop("open")
    rng = np.random.default_rng(1)
    features = keras.ops.convert_to_tensor(
        strategies.unit_rows(rng, args.batch_size, args.embedding_dim)
    )
    indices = rng.integers(0, args.large, (2, args.batch_size))
    shape = 2, args.batch_size, args.num_negatives
    negatives = rng.integers(0, args.large, shape).astype("int32")
    few = features[: args.few]
    for again, suffix in enumerate(("", ", again")):
        runs = {
            f"update of {args.batch_size} rows": lambda i=indices[again]: bank.update(i, features),
            f"{args.batch_size} x {args.num_negatives} scores": lambda j=negatives[again]: (
                bank.scores(features, j)
            ),
            "search of 1 query": lambda: bank.search(features[:1], k=10),
        }
        if not again:  # they read everything, as the search of 1 query does
            runs[f"search of {args.few} queries"] = lambda: bank.search(few, k=10)
            runs[f"exact softmax of {args.few} images"] = lambda: bank.attend(few, TEMPERATURE)
        runs["flush"] = bank.rows.flush
        for name, run in runs.items():
            clock.start()
            frameworks.wait(run())
            clock.stop(name + suffix)
    own = bank.lookup(indices[1][:3])
    best = keras.ops.convert_to_numpy(bank.search(own, k=1).indices)[:, 0]
    assert best.tolist() == indices[1][:3].tolist(), "a row is not its own nearest row"
    return clock, bank


def in_a_process(args, stage, path):
    """What a stage measures, in a process of its own, which begins with no memory in use."""
    command = [sys.executable, "-m", "benchmarks.storage", *sys.argv[1:]]
    command += ["--stage", stage, "--path", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stage(args):
    """Run one stage and print what it measured."""
    before = memory()
    clock, bank = {"create": create, "use": use}[args.stage](args, Path(args.path))
    found = {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds}
    found |= {"before": before, "after": memory(), "peak": harness.resident_bytes("VmHWM")}
    print(json.dumps(found))
    del bank


def large(args):
    """Create, open, update and search a bank of many rows, and store what it took."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "bank.rows"
        stages = {name: in_a_process(args, name, path) for name in ("create", "use")}
        size = path.stat().st_size
    rows = [(k, f"{v:.3g}") for s in stages.values() for k, v in s["seconds"].items()]
    harness.table((f"{args.large:,} rows, {size / 1e9:.1f} GB", "s"), rows)
    about = {"settings": settings(args), "file_bytes": size}
    harness.write("storage-large", {**about, "stages": stages})


def settings(args):
    """What the measurement depends on: all flags but the places of files."""
    return {k: v for k, v in vars(args).items() if k not in ("folder", "stage", "path")}


def main():
    """Parse, measure, write."""
    sizes = {"num_instances": 500_000, "batch_size": 256, "num_negatives": 4096, "rounds": 5}
    parser = harness.parser(__doc__, **sizes, embedding_dim=128, large=0, few=16)
    parser.add_argument("--dtype", default="int8", help="of the large bank")
    parser.add_argument("--folder", default=None, help="for the files; a temporary one otherwise")
    parser.add_argument("--stage", choices=("create", "use"), help="for the benchmark's own use")
    parser.add_argument("--path", help="also")
    args = parser.parse_args()
    if args.stage:
        stage(args)
    elif args.large:
        large(args)
    else:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            seconds = compared(args, Path(folder))
        harness.write("storage", {"settings": settings(args), "seconds": seconds})


if __name__ == "__main__":
    main()
