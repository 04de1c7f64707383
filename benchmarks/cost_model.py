"""What a step costs on several devices: bytes that ranks exchange, memory, and seconds.

The seconds come from stored results, ``benchmarks/results/``, and from the constants below, each
with its source. Imports no framework, so that documents and tests can use it.
"""

import json
import math
from pathlib import Path
from typing import Literal, NamedTuple

RESULTS = Path(__file__).parent / "results"
Objective = Literal["exact", "nce", "shared_nce"]

FLOAT = INTEGER = 4  # bytes of a number that ranks exchange
ROW_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # of one number
SCALE_BYTES = 4  # of a row in int8

# Assumed, not measured. Bytes per second in one direction; a share of them arrives.
NVLINK = 450e9  # H100 SXM: 900 GB/s in both directions together (NVIDIA, H100 datasheet)
NETWORK = 50e9  # a 400 Gb/s InfiniBand NDR port for each GPU, as DGX H100 has (NVIDIA, datasheet)
PCIE = 64e9  # PCIe 5.0 with 16 lanes (PCI-SIG)
EFFICIENCY = 0.8
RANKS_OF_A_MACHINE = 8
COLLECTIVE = 25e-6  # seconds until a small collective is done, on one machine
DEVICE_MEMORY = 80e9
FOR_THE_BANK = 0.75  # of it; the rest is the encoder's
# ResNet-50, 224 pixels, mixed precision, A100 (github.com/huggingface/pytorch-image-models,
# issue 1491). An H100 is faster, so the encoder's share is rather smaller than shown.
IMAGES_PER_SECOND = 2600
PARAMETERS = 25.6e6


class Traffic(NamedTuple):
    """What one rank exchanges in a step, without the encoder's gradients.

    Attributes:
        gathered: bytes that it contributes to collectives that gather.
        reduced: bytes that it contributes to collectives that add, or take a maximum.
        collectives: how many there are.
    """

    gathered: int
    reduced: int
    collectives: int

    def sent(self, ranks: int) -> float:
        """Bytes that a rank sends, if collectives go around a ring.

        What it gathers goes to each of the others; a sum goes around twice, in parts.
        """
        return (ranks - 1) * self.gathered + 2 * (ranks - 1) / ranks * self.reduced


def traffic(
    objective: Objective, batch: int, d: int, negatives: int, ranks: int, sharded: bool
) -> Traffic:
    """What a rank exchanges in a step of training, in bytes. It does not depend on n.

    The batch is gathered first: ``b = batch / ranks`` features and indices of each rank. With the
    whole bank on every rank, each computes for ``b`` images, and the results are gathered. With a
    part of the rows on each, all compute for the whole batch, and the results are added; and the
    rows of the batch are read once more for the update. ``K`` is the number of rows that an image
    is compared with. Not counted: a few bytes for the sizes of the parts, and sample weights.

    Args:
        objective: ``"exact"``, ``"nce"`` with negatives of each image's own (as InfoNCE), or
            ``"shared_nce"``.
        batch: images of all ranks together, a multiple of ``ranks``.
        d: width of a row.
        negatives: their number, ``m``; the exact softmax has none.
        ranks: their number.
        sharded: whether each rank stores a part of the rows.
    """
    if ranks == 1:
        return Traffic(0, 0, 0)
    part = batch // ranks
    gathered, collectives = part * (d * FLOAT + INTEGER), 2
    shared = objective == "shared_nce"
    compared = batch + negatives if shared else 1 + negatives
    if not sharded:
        if objective == "exact":  # log Z and the expected row, together
            return Traffic(gathered + part * (1 + d) * FLOAT, 0, collectives + 1)
        return Traffic(gathered + part * (compared + d) * FLOAT, 0, collectives + 2)
    rows = batch * d * FLOAT
    if objective == "exact":  # the positives; the maximum, and the sum, of the ranks' softmaxes
        reduced = rows + batch * FLOAT + batch * (1 + d) * FLOAT
        return Traffic(gathered, reduced + rows, collectives + 4)
    # Of shared rows, the rows are sent if they are fewer numbers than their scores.
    scores = compared * (d if shared and d < batch else batch) * FLOAT
    return Traffic(gathered, scores + rows + rows, collectives + 3)


def bank_bytes(n: int, d: int, dtype: str, ranks: int = 1) -> int:
    """Bytes of a bank's rows on a rank; ``ranks`` is 1 where each has all of them."""
    row = d * ROW_BYTES[dtype] + (SCALE_BYTES if dtype == "int8" else 0)
    return math.ceil(n / ranks) * row


def link(ranks: int) -> float:
    """Bytes per second that a rank can send."""
    return EFFICIENCY * (NVLINK if ranks <= RANKS_OF_A_MACHINE else NETWORK)


def exchange_seconds(exchanged: Traffic, ranks: int) -> float:
    """Seconds of a step's collectives."""
    if ranks == 1:
        return 0.0
    rounds = max(1.0, math.log2(ranks) / math.log2(RANKS_OF_A_MACHINE))
    return exchanged.collectives * COLLECTIVE * rounds + exchanged.sent(ranks) / link(ranks)


def stored(name: str) -> dict:
    """A stored result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


class Gpu:
    """Seconds of the objective on one H100, from what was measured on one."""

    def __init__(self) -> None:
        attention = stored("attention-torch-cuda")
        self.images = 256
        self.kernels: dict[str, dict[int, float]] = {}
        for one in attention["measured"]:
            if one["tiles"]:
                known = self.kernels.setdefault(one["dtype"], {})
                known[one["rows"]] = min(known.get(one["rows"], math.inf), one["ms"] / 1e3)
        self.bandwidth = 1e12 * attention["rates"]["terabytes_per_second"]
        small, large = (
            {k: s["median"] for k, s in stored(name)["seconds"].items()}
            for name in ("objectives-torch-cuda", "objectives-1281167-torch-cuda")
        )
        # what else a kernel takes: from the smaller bank in float32.
        self.launch = 0.0
        self.launch = self.kernels["float32"][50_000] - self.attention(50_000, 256, "float32")
        # What a step takes before and after its kernels, run operation by operation.
        self.overhead = {"exact": small["exact softmax"] - self.kernels["float32"][50_000]}
        self.overhead |= {"nce": small["NCE"], "shared_nce": small["NCE, shared negatives"]}
        # A bank of 50,000 rows is in the GPU's cache, so the difference is reading.
        read = 2 * 256 * 4097 * 128 * 4
        self.gather = read / (large["NCE"] - small["NCE"])

    def attention(self, rows: float, images: float, dtype: str, d: int = 128) -> float:
        """Seconds of attention: products at the rate of the largest bank, or reading."""
        largest = max(self.kernels[dtype])
        rate = self.kernels[dtype][largest] / (largest * self.images * 128)
        reading = bank_bytes(int(rows), d, dtype) / self.bandwidth
        return self.launch + max(rate * rows * images * d, reading)

    def objective(
        self, objective: Objective, n: float, images: int, m: int, dtype: str, d: int = 128
    ) -> float:
        """Seconds of an objective for some images and ``n`` rows on this device."""
        if objective == "exact":
            return self.overhead["exact"] + self.attention(n, images, dtype, d)
        rows = images * (1 + m) if objective == "nce" else images + m
        return self.overhead[objective] + 2 * bank_bytes(rows, d, dtype) / self.gather


class Step(NamedTuple):
    """A predicted step.

    Attributes:
        layout: ``"whole"``, ``"sharded"`` or ``"host"``: where the rows are.
        bank: bytes of rows on each device, or of each machine's host.
        encoder, gradients, objective, exchange: seconds.
        traffic: bytes that a rank sends for the objective.
    """

    layout: str
    bank: int
    encoder: float
    gradients: float
    objective: float
    exchange: float
    traffic: float

    @property
    def seconds(self) -> float:
        """The whole step; nothing is taken to run at the same time."""
        return self.encoder + self.gradients + self.objective + self.exchange


def step(
    gpu: Gpu,
    objective: Objective,
    n: int,
    ranks: int,
    dtype: str = "int8",
    part: int = 256,
    d: int = 128,
    m: int = 4096,
) -> Step:
    """Predict a step of ``part`` images on each of some GPUs.

    The whole bank is on every rank if it fits; else each rank has a part; else the rows are in the
    host's memory, and what is read of them crosses PCIe.
    """
    batch, room = part * ranks, FOR_THE_BANK * DEVICE_MEMORY
    sharded = bank_bytes(n, d, dtype) > room
    own = bank_bytes(n, d, dtype, ranks if sharded else 1)
    layout = "whole" if not sharded else "sharded" if own <= room else "host"
    exchanged = traffic(objective, batch, d, m, ranks, sharded)
    # Sharded, a rank computes for all images, and its own rows.
    rows, images = (n / ranks, batch) if sharded else (n, part)
    seconds = gpu.objective(objective, rows, images, m, dtype, d)
    if layout == "host":
        compared = images * (1 + m) if objective == "nce" else images + m
        read = own if objective == "exact" else 2 * bank_bytes(compared, d, dtype)
        seconds += read / (EFFICIENCY * PCIE)
    gradients = Traffic(0, int(PARAMETERS) * FLOAT, 1)
    return Step(
        layout,
        own,
        part / IMAGES_PER_SECOND,
        exchange_seconds(gradients, ranks),
        seconds,
        exchange_seconds(exchanged, ranks),
        exchanged.sent(ranks),
    )
