"""Exact nearest-neighbor search in the bank, against FAISS and against one whole top-k.

    KERAS_BACKEND=torch python -m benchmarks.search

Every candidate's neighbors are checked against float64 before it is timed. Then the same for one
query and more, in banks of several sizes, with scores checked against FAISS's; and for one query in
a bank of int8, next to what reading the bank takes.
"""

from functools import partial

import faiss
import numpy as np
from keras import ops

from benchmarks import frameworks, harness
from benchmarks.names import FAISS, SEARCH, WHOLE
from instdisc_core import MemoryBank
from instdisc_core.testing import strategies

SIZES = (10_000, 100_000, 1_280_000)
QUERIES = (1, 8, 64, 500)
LARGEST = 2**27  # scores that one product may store: 512 MiB


def candidates(args, bank, queries):
    """Name to function of the queries that returns scores and indices, best first.

    FAISS takes OpenMP's number of threads, as PyTorch does.
    """
    index = faiss.IndexFlatIP(args.embedding_dim)
    index.add(ops.convert_to_numpy(bank.rows))

    @frameworks.compiled
    def whole(queries, rows):
        return ops.top_k(ops.matmul(queries, ops.transpose(rows)), args.k)

    rows = ops.convert_to_tensor(bank.rows)
    return {
        FAISS: lambda queries: index.search(ops.convert_to_numpy(queries), args.k),
        WHOLE: lambda queries: whole(queries, rows),
        SEARCH: lambda queries: bank.search(queries, args.k),
    }


def check(args, found, queries, rows):
    """Raise unless each candidate finds the neighbors of float64, up to ties within 1e-6."""
    s = queries.astype("float64") @ rows.T.astype("float64")
    best = -np.partition(-s, args.k - 1, axis=1)[:, : args.k]
    worst = best.min(axis=1, keepdims=True)
    best = -np.sort(-best, axis=1)
    errors = {}
    for name, run in found.items():
        scores, indices = harness.poisoned((args.queries, args.k), (args.queries, args.k))
        harness.collect(run, (scores, indices))
        indices = indices.astype("int64")  # a NaN that is left is no row
        taken = np.take_along_axis(s, indices, axis=1)
        if not (np.all(taken >= worst - 1e-6) and all(len(set(i)) == args.k for i in indices)):
            raise AssertionError(f"{name} missed a neighbor")
        errors[name] = float(np.abs(scores - best).max())
        if not errors[name] < 1e-5:
            raise AssertionError(f"{name}'s scores are off by {errors[name]}")
    return errors


def sweep(args):
    """Seconds of every candidate, for each number of rows and of queries."""
    found = []
    for n in args.sizes:
        bank = MemoryBank(n, args.embedding_dim, seed=0)
        for count in args.counts:
            if n * count > LARGEST:
                continue
            rows = strategies.unit_rows(np.random.default_rng(count), count, args.embedding_dim)
            queries = ops.convert_to_tensor(rows)
            runs = {
                name: partial(run, queries) for name, run in candidates(args, bank, queries).items()
            }
            ours, theirs = (ops.convert_to_numpy(runs[name]()[0]) for name in (SEARCH, FAISS))
            if not np.allclose(ours, theirs, rtol=0, atol=1e-5):
                raise AssertionError(f"{SEARCH} missed a neighbor: {count} queries, {n} rows")
            seconds = harness.alternate(runs, args.rounds, warmups=1)
            found.append({"num_instances": n, "queries": count, "seconds": seconds})
    harness.table(
        ("rows", "queries", *(f"{name}, ms" for name in found[0]["seconds"])),
        [
            (
                f"{one['num_instances']:,}",
                one["queries"],
                *(f"{1e3 * s['median']:.2f}" for s in one["seconds"].values()),
            )
            for one in found
        ],
    )
    return found


def reading(args):
    """Seconds of one query in a bank of int8, and of reading and copying as many bytes."""
    n, d = max(args.sizes), args.embedding_dim
    bank = MemoryBank(n, d, dtype="int8", seed=0)
    query = ops.convert_to_tensor(strategies.unit_rows(np.random.default_rng(0), 1, d))
    held = np.ones(n * d // 8, "int64")
    copy = held.copy()
    seconds = harness.alternate(
        {
            "search": lambda: bank.search(query, 10),
            "read": held.sum,
            "copy": lambda: np.copyto(copy, held),
        },
        args.rounds,
    )
    print({name: f"{1e3 * s['median']:.1f} ms" for name, s in seconds.items()})
    return {"num_instances": n, "seconds": seconds}


def main():
    """Parse, measure, write."""
    sizes = {"num_instances": 300_000, "queries": 500, "k": 200}
    parser = harness.parser(__doc__, **sizes, embedding_dim=128, rounds=7)
    parser.add_argument("--memory", help="only print the peak memory of this candidate")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of the sweep")
    parser.add_argument("--counts", type=int, nargs="+", default=QUERIES, help="its queries")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    bank = MemoryBank(args.num_instances, args.embedding_dim, seed=0)
    queries = ops.convert_to_tensor(strategies.unit_rows(rng, args.queries, args.embedding_dim))
    found = candidates(args, bank, queries)
    if args.memory:
        run = found[args.memory]
        print(harness.peak_extra_bytes(partial(run, queries), partial(run, queries[:8])))
        return
    fresh = strategies.unit_rows(rng, args.queries, args.embedding_dim)
    given = ops.convert_to_tensor(fresh)
    rows = ops.convert_to_numpy(bank.rows)
    errors = check(args, {k: partial(run, given) for k, run in found.items()}, fresh, rows)
    seconds = harness.alternate({k: partial(run, queries) for k, run in found.items()}, args.rounds)
    memory = harness.memory("benchmarks.search", found)
    ratio = harness.times_faster(seconds, FAISS)
    device = harness.floors()
    operations = 2 * args.queries * args.num_instances * args.embedding_dim
    harness.table(
        ("search", "ms", "times faster", "MiB extra", "largest error"),
        [
            (
                name,
                f"{1e3 * seconds[name]['median']:.0f}",
                f"{ratio[name]:.1f}",
                f"{memory[name] / 2**20:.0f}",
                f"{errors[name]:.0e}",
            )
            for name in found
        ],
    )
    harness.write(
        "search",
        {
            "settings": vars(args),
            "seconds": seconds,
            "times_faster": ratio,
            "extra_bytes": memory,
            "errors": errors,
            "sweep": sweep(args),
            "int8": reading(args),
            "float32_product_seconds": operations / device["operations_per_second"],
            "floors": device,
        },
    )


if __name__ == "__main__":
    main()
