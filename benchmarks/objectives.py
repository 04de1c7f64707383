"""Loss and gradient of each objective, against NCE as public implementations compute it.

KERAS_BACKEND=torch python -m benchmarks.objectives
KERAS_BACKEND=jax python -m benchmarks.objectives --num-instances 1281167 --dtype bfloat16
KERAS_BACKEND=torch python -m benchmarks.objectives --scaling
"""

from functools import partial
from statistics import median

import keras
import numpy as np

from benchmarks import baseline, batches, frameworks, harness, names
from benchmarks.names import BUFFERED, PRODUCT, PUBLIC
from instdisc_core import NCE, MemoryBank, NonParametricSoftmax
from instdisc_core.testing import reference

TEMPERATURE = 0.07
SCALING = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


class Problem:
    """A bank, a batch, and the candidates that compute its losses and gradient."""

    def __init__(self, args, num_instances, seed=0):
        self.rng = np.random.default_rng(seed)
        self.bank = MemoryBank(num_instances, args.embedding_dim, dtype=args.dtype, seed=seed)
        self.z = 2.31 * num_instances  # of random rows at this temperature
        self.args = args
        self.features, self.indices = self.batch()

    def batch(self):
        """New features, each half way to its own row, and their indices."""
        indices = batches.instances(self.rng, self.bank.num_instances, self.args.batch_size)
        own = keras.ops.convert_to_numpy(self.bank.lookup(indices))
        tensor = keras.ops.convert_to_tensor
        return tensor(batches.features_near(self.rng, own)), tensor(indices)

    def ours(self, objective, negatives=None):
        """One of our objectives as a function of a batch."""
        objective.build(self.bank.shape)
        return frameworks.losses_and_gradient(
            lambda features, indices: objective(features, indices, self.bank, negatives),
            [*self.bank.variables, *objective.variables],
        )

    def candidates(self):
        """Name to function of a batch."""
        m = self.args.num_negatives
        rows = self.float_rows()
        self.public_nce = baseline.NCE(rows, m, TEMPERATURE, self.z)
        buffered = {}
        if keras.backend.backend() == "torch":  # XLA and TensorFlow keep their buffers anyway
            self.buffered_nce = baseline.NCE(rows, m, TEMPERATURE, self.z, keep_buffer=True)
            buffered = {BUFFERED: self.buffered_nce.step}
        return {
            PUBLIC: self.public_nce.step,
            **buffered,
            PRODUCT: baseline.softmax(rows, TEMPERATURE),
            names.EXACT: self.ours(NonParametricSoftmax(TEMPERATURE)),
            names.NCE: self.ours(NCE(m, TEMPERATURE, seed=1)),
            names.SHARED_NCE: self.ours(NCE(m, TEMPERATURE, shared_negatives=True, seed=1)),
        }

    def runs(self, candidates):
        """The candidates as functions of no argument, on this problem's batch."""
        return {name: partial(run, self.features, self.indices) for name, run in candidates.items()}

    def float_rows(self):
        """The bank's rows as float32 in NumPy."""
        return keras.ops.convert_to_numpy(self.bank.lookup(np.arange(self.bank.num_instances)))

    def errors(self):
        """Relative errors of losses and gradients against float64, on a new batch."""
        args = self.args
        features, indices = self.batch()
        f, i = keras.ops.convert_to_numpy(features), keras.ops.convert_to_numpy(indices)
        n, rows = self.bank.num_instances, self.float_rows()
        m = min(args.num_negatives, 512)
        own = self.rng.integers(0, n, (len(i), m)).astype("int32")
        shared = self.rng.integers(0, n, m).astype("int32")
        noise = np.full(n, 1 / n)

        errors = {}
        for name, objective, negatives in (
            (names.EXACT, NonParametricSoftmax(TEMPERATURE), None),
            (names.NCE, NCE(m, TEMPERATURE), own),
            (names.SHARED_NCE, NCE(m, TEMPERATURE, shared_negatives=True), shared),
        ):
            losses, gradient = harness.poisoned(i.shape, f.shape)
            given = negatives if negatives is None else keras.ops.convert_to_tensor(negatives)
            step = self.ours(objective, given)
            harness.collect(lambda step=step: step(features, indices), (losses, gradient))
            if negatives is None:
                expected = reference.softmax(f, i, rows, TEMPERATURE)
            else:
                each = np.broadcast_to(negatives, (len(i), m))
                log_z = reference.sampled_log_z(f, each, rows, TEMPERATURE, noise)
                expected = reference.nce(f, i, each, rows, TEMPERATURE, log_z, noise)
            errors[name] = {
                "loss": harness.relative_error(losses, expected[0]),
                "gradient": harness.relative_error(gradient, expected[1]),
            }
        for name, error in errors.items():
            if not max(error.values()) < 1e-4:
                raise AssertionError(f"{name} is wrong: {error}")
        return errors


def least_seconds(args, num_instances, device):
    """The least time of each objective: its operations and bytes at the device's best rates."""
    b, d, m = args.batch_size, args.embedding_dim, args.num_negatives
    size = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}[args.dtype]
    work = {  # multiplications and additions of scores and gradient; bytes of each row once
        names.EXACT: (4 * b * num_instances * d, num_instances * d * size),
        names.NCE: (4 * b * (m + 1) * d, min(b * (m + 1), num_instances) * d * size + 12 * b * m),
        names.SHARED_NCE: (4 * b * (m + b) * d, (m + b) * d * size),
    }
    return {
        name: max(operations / device["operations_per_second"], volume / device["bytes_per_second"])
        for name, (operations, volume) in work.items()
    }


def compare(args):
    """All objectives at one size."""
    problem = Problem(args, args.num_instances)
    errors = problem.errors()
    candidates = problem.runs(problem.candidates())
    seconds = harness.alternate(candidates, args.rounds)
    memory = harness.memory("benchmarks.objectives", candidates)
    device = harness.floors()
    least = least_seconds(args, args.num_instances, device)
    ratio = harness.times_faster(seconds, PUBLIC)
    harness.table(
        ("loss and gradient", "ms", "times faster", "MiB extra", "floor ms", "gradient error"),
        [
            (
                name,
                f"{1e3 * seconds[name]['median']:.1f}",
                f"{ratio[name]:.1f}",
                f"{memory[name] / 2**20:.0f}",
                f"{1e3 * least[name]:.1f}" if name in least else "",
                f"{errors[name]['gradient']:.0e}" if name in errors else "",
            )
            for name in candidates
        ],
    )
    results = {
        "seconds": seconds,
        "times_faster": ratio,
        "extra_bytes": memory,
        "floor_seconds": least,
        "errors": errors,
        "floors": device,
    }
    return {"settings": vars(args), **results}


def scaling(args):
    """Times of all objectives over the number of images, in several passes over all sizes."""
    sizes = [n for n in SCALING if n <= args.largest]
    times = {n: {} for n in sizes}
    for _ in range(args.passes):
        for n in sizes:
            problem = Problem(args, n)
            candidates = problem.candidates()
            del candidates[PRODUCT]  # it holds batch x n scores
            candidates.pop(BUFFERED, None)
            measured = harness.alternate(problem.runs(candidates), rounds=3, warmups=1)
            for name, seconds in measured.items():
                times[n].setdefault(name, []).append(seconds["median"])
            print(n, {k: f"{1e3 * s['median']:.1f} ms" for k, s in measured.items()}, flush=True)
    seconds = {
        n: {name: median(each) for name, each in found.items()} for n, found in times.items()
    }
    return {"settings": vars(args), "seconds": seconds}


def main():
    """Parse, measure, write."""
    sizes = {"num_instances": 50_000, "batch_size": 256, "num_negatives": 4096}
    parser = harness.parser(__doc__, **sizes, embedding_dim=128, rounds=15)
    parser.add_argument("--dtype", default="float32", help="of the bank")
    parser.add_argument("--scaling", action="store_true", help="over the number of images instead")
    parser.add_argument("--largest", type=int, default=SCALING[-1], help="of the scaling")
    parser.add_argument("--passes", type=int, default=3, help="of the scaling")
    parser.add_argument("--memory", help="only print the peak memory of this candidate")
    args = parser.parse_args()
    if args.memory:
        problem = Problem(args, args.num_instances)
        run = problem.candidates()[args.memory]
        f, i = problem.features, problem.indices
        print(harness.peak_extra_bytes(partial(run, f, i), partial(run, f[:8], i[:8])))
    elif args.scaling:
        harness.write("scaling", scaling(args))
    else:
        name = "objectives" if args.num_instances == 50_000 else f"objectives-{args.num_instances}"
        name += "" if args.dtype == "float32" else f"-{args.dtype}"
        harness.write(name, compare(args))


if __name__ == "__main__":
    main()
