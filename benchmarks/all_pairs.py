"""Near-duplicates, outliers and clusters of many embeddings, next to one product of all pairs.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 KERAS_BACKEND=torch python -m benchmarks.all_pairs

Random unit rows, of which some have a copy nearby. All of these copies, and nothing else, must be
found. Times are the processor's.
"""

import time
from pathlib import Path

import keras
import numpy as np

from benchmarks import harness
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import unit
from instdisc_core.index import ImageIndex

NOISE = 0.2  # of a copy, relative to its original
BLOCK = 1024
PRODUCT, SEARCHES = "one product of all pairs", "a search for the 16 nearest of each"
DUPLICATES, OUTLIERS, CLUSTERS = "near_duplicates()", "outliers(10)", "clusters(20)"


def planted(count, width, copies, seed=0):
    """Unit rows, of which the last ``copies`` are near to the first."""
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype("float32")
    rows[count - copies :] = rows[:copies] + NOISE * rows[count - copies :]
    return unit(rows)


def product(rows):
    """All inner products, a block at a time, each of which is overwritten by the next."""
    tile = np.empty((BLOCK, BLOCK), "float32")
    for i in range(0, len(rows), BLOCK):
        for j in range(0, len(rows), BLOCK):
            left, right = rows[i : i + BLOCK], rows[j : j + BLOCK]
            np.matmul(left, right.T, out=tile[: len(left), : len(right)])


def measured(run):
    """What a function returns, its seconds of the processor, and the memory it took meanwhile."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before, start = harness.resident_bytes(), time.process_time()
    result = run()
    seconds = time.process_time() - start
    return result, {"seconds": seconds, "bytes": harness.resident_bytes("VmHWM") - before}


def main():
    """Measure, check, and store."""
    parser = harness.parser(__doc__, images=100_000, width=128, copies=2000)
    args = parser.parse_args()
    rows = planted(args.images, args.width, args.copies)
    source = ImageArray(np.zeros((len(rows), 1, 1, 3), "uint8"))
    index = ImageIndex(rows, source)
    searched = ImageIndex(rows, source, backend=keras.backend.backend())
    calls = {
        DUPLICATES: index.near_duplicates,
        OUTLIERS: lambda: index.outliers(10),
        PRODUCT: lambda: product(rows),
        SEARCHES: lambda: searched.neighbors(16),
        CLUSTERS: lambda: index.clusters(20),
    }
    found = {}
    for name, call in calls.items():
        result, found[name] = measured(call)
        print(name, found[name], flush=True)
        if name == DUPLICATES:
            first = np.arange(args.copies)
            expected = np.stack([first, first + args.images - args.copies], axis=1)
            np.testing.assert_array_equal(result.pairs[np.argsort(result.pairs[:, 0])], expected)
    harness.write(f"all-pairs-{args.images}", {**vars(args), "calls": found})


if __name__ == "__main__":
    main()
