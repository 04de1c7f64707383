"""How the benchmarks measure: runs in turn, medians, peak memory, floors, and the machine."""

import argparse
import ctypes
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import keras
import numpy as np

from benchmarks import frameworks
from instdisc_core.evaluation import text_table

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))
CODE = ("../instdisc_core", "../backends", "*.py")  # a commit with changes to these gets a "+"
PACKAGES = ("keras", "torch", "tensorflow", "tensorflow-cpu", "jax", "numpy", "faiss-cpu", "triton")
PACKAGES += ("pillow", "simplejpeg", "cykooz-resizer", "torchvision", "lightly")
VECTORS = {  # of processors, by the flag of Linux, the widest first
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX-512 with bfloat16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
}


def parser(doc, **integers):
    """A parser for a module with this docstring, with a flag for each integer and its default."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in integers.items():
        found.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return found


def timed(run):
    """Seconds that a function of no argument takes until its result is computed, and the result."""
    start = time.perf_counter()
    result = frameworks.wait(run())
    return time.perf_counter() - start, result


def alternate(candidates, rounds=9, warmups=2):
    """Time each candidate once in each round, so that a slow minute of the machine affects all.

    Args:
        candidates: dict from name to a function of no argument that returns its result.
        rounds: how many times each one is timed.
        warmups: how many times each one runs before, untimed.

    Returns:
        Dict from name to ``{"median", "fastest", "slowest"}``, in seconds.
    """
    for run in candidates.values():
        for _ in range(warmups):
            frameworks.wait(run())
    seconds = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            seconds[name].append(timed(run)[0])
    return {
        name: {"median": median(times), "fastest": min(times), "slowest": max(times)}
        for name, times in seconds.items()
    }


def times_faster(seconds, baseline):
    """How many times faster each candidate's median is than the baseline's."""
    return {name: seconds[baseline]["median"] / s["median"] for name, s in seconds.items()}


def memory(module, names):
    """The peak extra memory of each candidate, in bytes, each in a process of its own.

    A process that ran other candidates before still holds memory that they freed, which would hide
    the peak. The module is run again with this run's arguments and ``--memory NAME``, and prints
    what ``peak_extra_bytes`` returns.
    """

    def measured(name):
        command = [sys.executable, "-m", module, *sys.argv[1:], "--memory", name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(printed.split()[-1])

    with ThreadPoolExecutor(max(1, cores() // 2)) as pool:
        return dict(zip(names, pool.map(measured, names), strict=True))


def peak_extra_bytes(run, warm_up):
    """The most memory that a run holds beyond what the process held before, in bytes.

    On a GPU the allocator counts. On a CPU the operating system does, since frameworks keep what
    they free: from before the first run to the peak, so that it includes compiling.

    Args:
        run: function of no argument.
        warm_up: the same on a small batch, so that libraries are loaded already.
    """
    frameworks.wait(warm_up())
    gc.collect()
    if frameworks.on_accelerator():
        frameworks.wait(run())
        return frameworks.peak_accelerator_bytes(run)
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    frameworks.wait(run())
    return max(0, _resident("VmHWM") - before)


def resident_bytes(part="VmRSS"):
    """The memory that this process holds now, in bytes; or another number of Linux's status."""
    return _resident(part)


def _resident(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")


def poisoned(*shapes):
    """Arrays of NaN, to write results into: an element that is not written fails every check."""
    return [np.full(shape, np.nan) for shape in shapes]


def collect(run, into):
    """Run once, and write the results into poisoned arrays."""
    for array, result in zip(into, run(), strict=True):
        array[...] = keras.ops.convert_to_numpy(result)


def relative_error(actual, expected):
    """``|actual - expected| / |expected|`` over the whole array; NaN if anything is missing."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def floors(side=2048, volume=2**28):
    """The best rates of this device: bytes per second of a copy, operations of a product."""
    left, right = (keras.random.normal((side, side)) for _ in range(2))
    product = frameworks.compiled(keras.ops.matmul)
    if frameworks.on_accelerator():
        source = keras.ops.ones(volume // 4)
        increment = frameworks.compiled(lambda x: x + 1.0)
        copy = partial(increment, source)
    else:  # into memory that is allocated already
        source, target = np.ones(volume // 4, "float32"), np.ones(volume // 4, "float32")
        copy = partial(np.copyto, target, source)
    seconds = alternate({"product": lambda: product(left, right), "copy": copy})
    return {
        "operations_per_second": 2 * side**3 / seconds["product"]["fastest"],
        "bytes_per_second": 2 * volume / seconds["copy"]["fastest"],
    }


def machine():
    """The device, the versions and the commit, and nothing that identifies this computer."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "backend": keras.backend.backend(),
        "device": frameworks.device(),
        "processor": _processor(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": installed,
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+" if _git("status", "-s", "--", *CODE) else ""),
        "date": datetime.date.today().isoformat(),
    }


def cores():
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _processor():
    """Its name, and its widest vectors: processors of one name can differ by them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    flags = found.get("flags", "").split()
    vectors = [name for flag, name in VECTORS.items() if flag in flags]
    return ", ".join([found.get("model name", platform.processor()), *vectors[:1]])


def _git(*arguments):
    run = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip()


def labeled(name):
    """The name with Keras's backend and the kind of the device, as results are stored."""
    kind = "cuda" if frameworks.on_accelerator() else "cpu"
    return f"{name}-{keras.backend.backend()}-{kind}"


def table(header, rows):
    """Print rows under a header, in columns."""
    print(text_table(header, rows))


def write(name, results):
    """Store the results with the machine, as ``results/<name>-<backend>-<device kind>.json``."""
    path = RESULTS / f"{labeled(name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n")
    print(f"written: {path}")
