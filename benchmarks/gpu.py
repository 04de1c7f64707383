"""An hour on a GPU: correctness first, then speed, then Table 1, in parts that continue.

    KERAS_BACKEND=jax python -m benchmarks.gpu --data cifar10-jpeg.tar.xz
    KERAS_BACKEND=torch python -m benchmarks.gpu --rehearse              # toy sizes, on any device

A call ends after --minutes. The same command then runs what is missing, and continues a training
that was stopped. Each part is one of the other benchmarks in a process of its own, and stores what
that stores; which parts are done is in `results/gpu-<backend>-<device kind>.json`. Nothing is
downloaded: CIFAR-10 is a folder with train/ and test/, or an archive of one.
"""

import json
import os
import subprocess
import sys
import tarfile
import time
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

# Before JAX is imported: a process that measures memory runs next to the one that started it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from benchmarks import harness, table1
from benchmarks.cifar import UNFINISHED

IMAGENET = 1_281_167
DONE, STOPPED, FAILED = "done", "stopped", "failed"


class Part(NamedTuple):
    """One process.

    Attributes:
        module: the benchmark.
        arguments: its arguments on a GPU, ``"DATA"`` and ``"MINUTES"`` filled in.
        toy: its arguments in a rehearsal.
    """

    module: str
    arguments: str = ""
    toy: str = ""


SMALL = "--num-instances 500 --batch-size 8 --num-negatives 16 --rounds 1"
FILES = "--data DATA --work WORK"
RESNET50 = "--depth 50 --stem imagenet"
PARTS = {
    "correctness": Part(
        "correctness", toy="--tests tests/test_memory_bank.py --select test_configuration"
    ),
    "objectives": Part("objectives", toy=SMALL),
    "objectives-imagenet": Part("objectives", f"--num-instances {IMAGENET}", SMALL),
    "objectives-imagenet-bfloat16": Part(
        "objectives", f"--num-instances {IMAGENET} --dtype bfloat16", f"{SMALL} --dtype bfloat16"
    ),
    "objectives-imagenet-int8": Part(
        "objectives", f"--num-instances {IMAGENET} --dtype int8", f"{SMALL} --dtype int8"
    ),
    "bank": Part(
        "bank", toy="--small 200 --large 400 --num-instances 300 --batch-size 8 --rounds 1"
    ),
    "search": Part(
        "search",
        toy="--num-instances 500 --queries 7 --k 5 --rounds 1 --sizes 60 500 --counts 1 3",
    ),
    "step": Part("step", toy=f"{SMALL} --width 16"),
    "step-resnet50": Part(
        "step",
        f"{RESNET50} --size 224 --num-instances {IMAGENET} --dtype-policy mixed_bfloat16",
        f"{RESNET50} {SMALL} --size 32 --width 16 --dtype-policy mixed_bfloat16",
    ),
    "throughput": Part(
        "throughput",
        FILES,
        f"{FILES} --epochs 2 --num-instances 500 --batch-size 8 --size 32 --width 16 --depths 18 "
        "--rounds 1",
    ),
    **{
        f"table1-{row}": Part(
            "table1",
            f"{FILES} --on-device --rows {row} --minutes MINUTES",
            f"{FILES} --on-device --budget --epochs 1 --rows {row} --minutes MINUTES",
        )
        for row in table1.ROWS
    },
}


def arguments(part, args, minutes):
    """What the part's benchmark is given."""
    filled = {"DATA": args.data, "WORK": args.work / "runs", "MINUTES": round(minutes, 1)}
    given = part.toy if args.rehearse else part.arguments
    return [str(filled.get(word, word)) for word in given.split()]


def run_in_a_process(part, args, minutes):
    """Run a part for so long at most; returns how it ended."""
    # A training stops by itself, with time to measure what it has learned.
    command = [sys.executable, "-m", f"benchmarks.{part.module}"]
    command += arguments(part, args, max(0.5, minutes - 1.5))
    environment = {**os.environ, "BENCHMARK_RESULTS": str(harness.RESULTS)}
    try:
        status = subprocess.run(command, env=environment, timeout=60 * minutes, check=False)
    except subprocess.TimeoutExpired:
        return STOPPED
    return {0: DONE, UNFINISHED: STOPPED}.get(status.returncode, FAILED)


def run_here(part, args, minutes):
    """Run a part in this process, where an error is an error."""
    before, sys.argv = sys.argv, [part.module, *arguments(part, args, minutes)]
    try:
        import_module(f"benchmarks.{part.module}").main()
    finally:
        sys.argv = before
    return DONE


def folder_of(data, work):
    """The folder of images: ``data``, or what its archive holds, unpacked once."""
    path = Path(data)
    if data == "keras" or path.is_dir():
        return data
    folder = work / path.name.split(".")[0]
    if not (folder / "unpacked").exists():
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        (folder / "unpacked").touch()
    return str(folder)


def write_toy_images(folder, classes=2, each=20):
    """Random images as CIFAR-10's are stored: train/<class>/ and test/<class>/."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in range(classes):
            place = folder / part / f"class{name}"
            place.mkdir(parents=True, exist_ok=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (32, 32, 3)).astype("uint8")
                Image.fromarray(pixels).save(place / f"{i}.png")
    return str(folder)


def main():
    """Run the parts that are missing, as long as there is time."""
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--data", default="keras", help="CIFAR-10: a folder, an archive of it, or 'keras'")
    add("--parts", nargs="+", choices=PARTS, help="only these, also if they are done or failed")
    add("--minutes", type=float, default=8, help="of this call")
    add("--work", type=Path, default="build/gpu", help="where unfinished trainings are kept")
    add("--rehearse", action="store_true", help="everything at toy size, in this process")
    args = parser.parse_args()

    ends = time.monotonic() + 60 * args.minutes
    path = harness.RESULTS / f"{harness.labeled('gpu')}.json"
    known = json.loads(path.read_text())["parts"] if path.exists() and not args.rehearse else {}
    if args.rehearse:
        args.data = write_toy_images(args.work / "toy")
    args.data = folder_of(args.data, args.work)
    for name in args.parts or [name for name in PARTS if known.get(name, STOPPED) == STOPPED]:
        started = time.monotonic()
        minutes = (ends - started) / 60
        if minutes < 1 and not args.rehearse:
            break
        print(f"\n{name}, {minutes:.1f} minutes left", flush=True)
        run = run_here if args.rehearse else run_in_a_process
        known[name] = run(PARTS[name], args, minutes)
        print(f"{name}: {known[name]} after {time.monotonic() - started:.0f} s", flush=True)
        if known[name] == STOPPED and minutes > 0.9 * args.minutes and "table1" not in name:
            known[name] = FAILED  # it had all the time of a call
        harness.write("gpu", {"parts": known})
    missing = [name for name in PARTS if known.get(name) != DONE]
    print(f"\nnot done: {', '.join(missing)}" if missing else "\nall parts are done")


if __name__ == "__main__":
    main()
