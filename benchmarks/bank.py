"""The memory bank: updates, the errors and times of each storage, the set-up of samplers.

    KERAS_BACKEND=torch python -m benchmarks.bank

The three parts are measured one after the other and stored together.
"""

import math

import keras
import numpy as np
from keras import ops

from benchmarks import batches, frameworks, harness, names
from benchmarks.step import Normalize, Scale
from instdisc_core import (
    NCE,
    AliasSampler,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    UniformSampler,
)
from instdisc_core.testing import reference, strategies

DTYPES = ("float32", "bfloat16", "float16", "int8")
TEMPERATURE = 0.07
STEPS = 20  # of a call of fit


def update_seconds(args):
    """Seconds per step of a stock ``fit`` with a small and a large bank, and their ratio."""
    rng = np.random.default_rng(0)
    rows = strategies.unit_rows(rng, STEPS * args.batch_size, 128)
    candidates = {}
    for n in (args.small, args.large):
        model = InstanceDiscrimination(
            Normalize(), n, 128, NCE(512, 0.1, shared_negatives=True, seed=0), projector=Scale()
        )
        model.compile(optimizer=keras.optimizers.SGD(0.03))
        indices = batches.instances(rng, n, len(rows))
        candidates[str(n)] = lambda model=model, indices=indices: model.fit(
            rows, indices, batch_size=args.batch_size, shuffle=False, verbose=0
        )
    measured = harness.alternate(candidates, args.rounds)
    seconds = {n: s["median"] / STEPS for n, s in measured.items()}
    ratio = seconds[str(args.large)] / seconds[str(args.small)]
    harness.table(
        ("images", "ms per step of fit, NCE with 512 shared negatives"),
        [(f"{int(n):,}", f"{1e3 * s:.2f}") for n, s in seconds.items()],
    )
    print(f"ratio {ratio:.2f}\n")
    return {"seconds": seconds, "ratio": ratio}


def clustered_rows(rng, rows, embedding_dim, clusters=1000):
    """Unit rows around centers, like a trained bank: cosines of about 0.7 within a cluster."""
    centers = strategies.unit_rows(rng, clusters, embedding_dim)
    points = centers[rng.integers(0, clusters, rows)] + 0.65 * strategies.unit_rows(
        rng, rows, embedding_dim
    )
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def storage(args):
    """Errors and times of each storage, against float64 on the rows before rounding."""
    n, d, b = args.num_instances, 128, args.batch_size
    found = {}
    for kind, draw in zip(names.KINDS_OF_ROWS, (strategies.unit_rows, clustered_rows), strict=True):
        rng = np.random.default_rng(1)
        rows = draw(rng, n, d).astype("float32")
        indices = batches.instances(rng, n, b)
        features = batches.features_near(rng, rows[indices])
        losses, gradient = reference.softmax(features, indices, rows, TEMPERATURE)
        nearest = np.argsort(-(features.astype("float64") @ rows.T), axis=1)[:, :10]
        for dtype in DTYPES:
            found.setdefault(dtype, {})[kind] = accuracy(
                rows, features, indices, dtype, losses, gradient, nearest
            )
    for dtype in DTYPES:
        bank = MemoryBank(1, d, dtype=dtype)
        parts = [v for v in bank.variables if len(v.shape)]  # all but its counters
        sizes = [math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in parts]
        found[dtype]["bytes_per_image"] = sum(sizes)
    found_seconds = storage_seconds(args, n, d)
    harness.table(
        ("storage", "bytes per image", "loss error", "gradient error", "recall@10", "exact ms"),
        [
            (
                dtype,
                found[dtype]["bytes_per_image"],
                f"{found[dtype]['clustered rows']['loss']:.1e}",
                f"{found[dtype]['clustered rows']['gradient']:.1e}",
                f"{found[dtype]['clustered rows']['recall_at_10']:.4f}",
                f"{1e3 * found_seconds[dtype]['median']:.1f}",
            )
            for dtype in DTYPES
        ],
    )
    return {"accuracy": found, "exact_softmax_seconds": found_seconds}


def accuracy(rows, features, indices, dtype, losses, gradient, nearest):
    """Errors of the exact softmax and of a search, with the bank in this dtype."""
    bank = MemoryBank(*rows.shape, dtype=dtype)
    bank.rows.assign(rows)
    f, i = ops.convert_to_tensor(features), ops.convert_to_tensor(indices)
    log_z, expected = harness.poisoned(len(features), features.shape)
    harness.collect(lambda: bank.attend(f, TEMPERATURE), (log_z, expected))
    own = ops.convert_to_numpy(bank.lookup(i))
    loss = log_z - (features * own).sum(axis=1) / TEMPERATURE
    found = ops.convert_to_numpy(bank.search(f, k=10)[1])
    hits = [
        len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), nearest.tolist(), strict=True)
    ]
    return {
        "loss": float(np.abs(loss - losses).max()),
        "gradient": harness.relative_error((expected - own) / TEMPERATURE, gradient),
        "recall_at_10": float(np.mean(hits)),
    }


def storage_seconds(args, n, d):
    """Seconds of the exact softmax's pass over a bank in each dtype."""
    features = ops.convert_to_tensor(
        strategies.unit_rows(np.random.default_rng(2), args.batch_size, d)
    )
    banks = {dtype: MemoryBank(n, d, dtype=dtype, seed=0) for dtype in DTYPES}
    objective = NonParametricSoftmax(TEMPERATURE)
    indices = ops.arange(args.batch_size, dtype="int32")
    candidates = {}
    for dtype, bank in banks.items():
        run = frameworks.losses_and_gradient(
            lambda f, i, bank=bank: objective(f, i, bank), bank.variables
        )
        candidates[dtype] = lambda run=run: run(features, indices)
    return harness.alternate(candidates, args.rounds)


def sampler_seconds(num_instances=10_000_000):
    """Seconds to set up each sampler, over ten million images."""
    weights = np.random.default_rng(0).random(num_instances) + 0.1
    candidates = {
        "UniformSampler": lambda: UniformSampler(seed=0),
        "AliasSampler": lambda: AliasSampler(weights, seed=0),
    }
    measured = harness.alternate(candidates, rounds=7, warmups=0)
    seconds = {name: s["median"] for name, s in measured.items()}
    for name, median in seconds.items():
        print(f"{name} over {num_instances:,} images: {1e3 * median:.2f} ms")
    return {"num_instances": num_instances, "seconds": seconds}


def main():
    """Parse, measure, write."""
    parser = harness.parser(__doc__, batch_size=256, rounds=9)
    parser.add_argument("--small", type=int, default=20_000, help="images in the small bank")
    parser.add_argument("--large", type=int, default=2_000_000, help="and in the large one")
    parser.add_argument("--num-instances", type=int, default=50_000, help="of the storages")
    args = parser.parse_args()
    results = {
        "update": update_seconds(args),
        "storage": storage(args),
        "samplers": sampler_seconds(),
    }
    harness.write("bank", {"settings": vars(args), **results})


if __name__ == "__main__":
    main()
