"""Batches that the devices of ``keras.distribution`` divide equally; JAX takes no others."""

from typing import Any

import keras
import numpy as np

from instdisc_core.data.batches import ArrayBatches
from instdisc_core.data.order import OrderedBatches
from instdisc_core.types import Tensor

COUNT, WEIGHTS = "count", "sample_weight"


class EvenBatches(keras.utils.PyDataset):
    """The batches of others, filled up with copies of their last image, which the step leaves out.

    A compiled step knows shapes alone. So in the place of the sample weights there is, next to
    them, an array whose width is the number of images; see ``without_padding``. If there are
    several processes, each has its own part of every batch.

    Args:
        batches: the OrderedBatches to fill up.
        devices: how many divide a batch.
        process, processes: which part of each batch this is, and of how many.
    """

    def __init__(
        self, batches: OrderedBatches, devices: int, process: int = 0, processes: int = 1
    ) -> None:
        super().__init__()
        self.batches, self.process = batches, process
        self.devices = devices // processes
        self.parts = devices

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
        batch = (*self.batches[number], {}, {})[:3]
        count = len(keras.tree.flatten(batch)[0])
        held = -(-count // self.parts) * self.devices
        own = np.minimum(np.arange(held) + held * self.process, count - 1)
        x, y, weights = keras.tree.map_structure(lambda array: array[own], batch)
        return x, y, {COUNT: np.zeros((self.devices, count), "uint8"), WEIGHTS: weights}


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


def divided(
    x: Any, y: Any = None, sample_weight: Any = None, batch_size: int | None = None
) -> EvenBatches | None:
    """Arrays or OrderedBatches as EvenBatches, or None where they serve as they are.

    They do not if devices must divide them and do not divide every batch equally, or if each
    process must have its own part.
    """
    devices, process, processes = data_shards()
    if devices == 1 or isinstance(x, EvenBatches):
        return None
    if not isinstance(x, OrderedBatches):
        arrays = keras.tree.flatten(x)
        if not arrays or not all(hasattr(array, "shape") for array in arrays):
            return None  # batches of the user's own, which have to be equal
        numbers = np.arange(len(arrays[0])) if y is None else y
        x = ArrayBatches(x, numbers, sample_weight, batch_size or 32)
    last = x.num_images % x.batch_size
    if processes == 1 and x.batch_size % devices == 0 and (x.drop_remainder or last % devices == 0):
        return None
    return EvenBatches(x, devices, process, processes)


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
