"""Predicts steps with 1.28 million to 1 billion images on 1 to 64 GPUs, and checks the model.

    python -m benchmarks.scale

Everything comes from stored results and the constants in ``benchmarks/cost_model.py``; nothing is
run. The checks predict sizes that were measured from other sizes that were measured.
"""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.cost_model import Gpu, Step, bank_bytes, step, stored
from benchmarks.names import EXACT, NCE, SHARED_NCE

IMAGES = (1_281_167, 14_000_000, 100_000_000, 1_000_000_000)
RANKS = (1, 8, 64)
OBJECTIVES = {"exact": EXACT, "nce": NCE, "shared_nce": SHARED_NCE}
DTYPES = ("float32", "bfloat16", "int8")
MILLION = 1_000_000


class Check(NamedTuple):
    """A prediction of what was measured.

    Attributes:
        what: is predicted.
        source: the sizes from which it is.
        predicted, measured: in ``unit``.
        unit: ``"s"`` or ``"bytes"``.
    """

    what: str
    source: str
    predicted: float
    measured: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def line(points: dict[int, float], first: int, last: int, at: int) -> float:
    """The value at one size of a line through two measured sizes."""
    slope = (points[last] - points[first]) / (last - first)
    return points[first] + slope * (at - first)


def checks() -> Iterator[Check]:
    """Predictions next to measurements."""
    gpu = Gpu()
    for dtype in ("bfloat16", "int8"):
        yield Check(
            f"attention on an H100, 50,000 rows of {dtype}",
            "1,281,167 rows, and what else a kernel takes in float32",
            gpu.attention(50_000, 256, dtype),
            gpu.kernels[dtype][50_000],
        )
    others = stored("attention-torch-cuda")["other_dims"]
    for d in (64, 128):
        found = [x for x in others["measured"] if x["dim"] == d and x["tiles"]]
        yield Check(
            f"attention on an H100, {others['rows']:,} rows of {d} numbers in float32",
            "1,281,167 rows of 128 numbers",
            gpu.attention(others["rows"], 256, "float32", d),
            min(x["ms"] for x in found) / 1e3,
        )
    measured = stored("objectives-1281167-torch-cuda")["seconds"]
    for objective in ("exact", "shared_nce"):
        name = OBJECTIVES[objective]
        predicted = gpu.objective(objective, IMAGES[0], 256, 4096, "float32")
        source = "50,000 images, and the kernel alone"
        yield Check(
            f"{name} on an H100, {IMAGES[0]:,} images", source, predicted, measured[name]["median"]
        )
    scaling = stored("scaling-torch-cpu")["seconds"]
    by_size = {int(n): seconds for n, seconds in scaling.items()}
    for n in (100_000, 10 * MILLION):
        known = {size: seconds[EXACT] for size, seconds in by_size.items()}
        yield Check(
            f"{EXACT} on two CPU cores, {n:,} images",
            "a line through 10,000 and 1,000,000",
            line(known, 10_000, MILLION, n),
            known[n],
        )
    for name in (NCE, SHARED_NCE):
        yield Check(
            f"{name} on two CPU cores, 10,000,000 images",
            "1,000,000: it does not depend on n",
            by_size[MILLION][name],
            by_size[10 * MILLION][name],
        )
    large = stored("storage-large-torch-cpu")
    rows = large["settings"]["large"]
    yield Check(
        f"a file of {rows:,} rows in int8",
        "the formula",
        bank_bytes(rows, 128, "int8"),
        large["file_bytes"],
        "bytes",
    )
    sizes = stored("bank-torch-cpu")["storage"]["accuracy"]
    for dtype in DTYPES:
        measured_bytes = sizes[dtype]["bytes_per_image"]
        yield Check(
            f"a row of 128 numbers in {dtype}",
            "the formula",
            bank_bytes(1, 128, dtype),
            measured_bytes,
            "bytes",
        )


def predictions() -> Iterator[tuple[int, int, dict[str, Step]]]:
    """Images, ranks, and a step of each objective, with rows in int8."""
    gpu = Gpu()
    for n in IMAGES:
        for ranks in RANKS:
            yield n, ranks, {name: step(gpu, name, n, ranks) for name in OBJECTIVES}


def main() -> None:
    """Print checks and predictions."""
    for check in checks():
        print(
            f"{check.what}, from {check.source}: predicted {check.predicted:.4g} {check.unit}, "
            f"measured {check.measured:.4g}, ratio {check.ratio:.2f}"
        )
    for n, ranks, steps in predictions():
        parts = [
            f"{OBJECTIVES[name]} {1e3 * s.seconds:.0f} ms "
            f"({1e3 * (s.objective + s.exchange):.1f} without the encoder, "
            f"{s.traffic / 1e6:.1f} MB sent)"
            for name, s in steps.items()
        ]
        some = next(iter(steps.values()))
        print(f"{n:,} images, {ranks} GPUs, {some.layout}, {some.bank / 1e9:.2f} GB: ", *parts)


if __name__ == "__main__":
    main()
