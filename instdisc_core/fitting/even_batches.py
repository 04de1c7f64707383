"""Batches that the devices of ``keras.distribution`` divide equally; JAX takes no others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from instdisc_core.data.batches import ArrayBatches
from instdisc_core.data.order import OrderedBatches
from instdisc_core.types import Tensor

COUNT, WEIGHTS = "count", "sample_weight"


class EvenBatches(keras.utils.PyDataset):
    """Ordered batches, filled up with copies of their last image, which the step leaves out.

    A compiled step knows shapes alone. So in the place of the sample weights there is, next to
    them, an array whose width is the number of images; see ``without_padding``.

    Args:
        batches: the OrderedBatches, whose ``devices`` and ``part`` are set.
    """

    def __init__(self, batches: OrderedBatches) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def num_batches(self) -> int:
        """See ``OrderedBatches.num_batches``."""
        return self.batches.num_batches

    def on_epoch_end(self) -> None:
        """See ``OrderedBatches.on_epoch_end``."""
        self.batches.on_epoch_end()

    def __getitem__(self, number: int) -> tuple[Any, Any, dict[str, Any]]:
        """``(x, y, marked)`` for ``without_padding``; what is missing is an empty dict."""
        own = self.batches
        x, y, weights = (*own[number], {}, {})[:3]
        count = len(own.indices(own.epoch, own.start + number))
        mark = np.zeros((own.devices // own.part[1], count), "uint8")
        return x, y, {COUNT: mark, WEIGHTS: weights}


def without_padding(data: Any) -> Any:
    """What a step gets, without the images that ``EvenBatches`` added; other data as they are."""
    marked = data[2] if isinstance(data, tuple) and len(data) == 3 else None
    if not isinstance(marked, dict) or COUNT not in marked:
        return data
    count = marked[COUNT].shape[1]

    def rows_of(part: Any) -> Any:
        if isinstance(part, dict) and not part:
            return None
        return keras.tree.map_structure(lambda array: array[:count], part)

    return tuple(map(rows_of, (data[0], data[1], marked[WEIGHTS])))


@contextmanager
def divided(
    x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None
) -> Iterator[EvenBatches | None]:
    """Arrays or OrderedBatches as EvenBatches; None where they serve as they are.

    They do not serve if devices must divide them and do not divide every batch equally, or if each
    process must have its own part.
    """
    batches = batches_to_divide(x, y, sample_weight, batch_size)
    if batches is None:
        yield None
        return
    before = batches.devices, batches.part
    devices, process, processes = data_shards()
    batches.devices, batches.part = devices, (process, processes)
    batches.on_epoch_end()  # forget what was decoded ahead for another part
    try:
        yield EvenBatches(batches)
    finally:
        batches.devices, batches.part = before
        batches.on_epoch_end()


def batches_to_divide(
    x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None
) -> OrderedBatches | None:
    """The batches that do not serve as they are, or None."""
    devices, _, processes = data_shards()
    if devices == 1 or isinstance(x, EvenBatches):
        return None
    if not isinstance(x, OrderedBatches):
        arrays = keras.tree.flatten(x)
        if not arrays or not all(hasattr(array, "shape") for array in arrays):
            return None  # batches of the user's own, which must be even already
        numbers = np.arange(len(arrays[0])) if y is None else y
        x = ArrayBatches(x, numbers, sample_weight, batch_size or 32)
    last = 0 if x.drop_remainder else x.num_images % x.batch_size
    even = x.batch_size % devices == 0 and last % devices == 0
    return None if even and processes == 1 else x


def data_shards() -> tuple[int, int, int]:
    """How many devices divide a batch; and which part is this process's, of how many."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return 1, 0, 1
    mesh = distribution.device_mesh
    devices = mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]
    processes = min(distribution.num_processes, devices)
    return devices, distribution.data_shard_id if processes > 1 else 0, processes


def whole_batch(outputs: Tensor) -> Tensor:
    """The outputs of a step on every device, which a process can then read."""
    distribution = keras.distribution.distribution()
    if data_shards()[0] == 1:
        return outputs
    layout = keras.distribution.TensorLayout((None,) * len(outputs.shape), distribution.device_mesh)
    return keras.distribution.distribute_tensor(outputs, layout)
