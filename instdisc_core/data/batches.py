"""Batches of images, and of arrays, in an order that is a function of seed and epoch."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.manifest import Manifest
from instdisc_core.data.order import OrderedBatches, SlidingWindow
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_number


class _Source(Protocol):
    """What ``ImageBatches`` needs of an ImageSource, whose module imports this one."""

    @property
    def manifest(self) -> Manifest: ...

    def __len__(self) -> int: ...

    def images(self) -> np.ndarray: ...

    def start(self, indices: ArrayLike) -> Callable[[], np.ndarray]: ...


class ImageBatches(OrderedBatches):
    """Batches of an ImageSource, in an order that is a pure function of the seed and the epoch.

    So a run can be repeated, and an interrupted run continues with the batches that it would have
    had. ``InstanceDiscrimination.fit`` sets ``epoch``; in a training loop of your own, set it
    yourself. While a batch is trained on, threads decode the next ones. ``fit`` warns if an epoch
    waits for them more than 30 % of its time.

    Args:
        source: the ImageSource.
        batch_size: images per batch; the last batch of an epoch holds the rest.
        seed: of the order, an integer; None keeps the order of the indices in every epoch, and
            yields images alone, for ``predict``.
        drop_remainder: leave out the images that do not fill a batch, other ones in each epoch.
            This saves a compilation for the shape of the last batch. If all images together do not
            fill a batch, they are one.
        prefetch: batches that are decoded ahead.
        on_device: keep all images on the device where Keras computes, and gather batches there.
            Nothing is copied from the host then, but the images must fit the device's memory.
        sliding_window: see ``OrderedBatches``.

    Attributes:
        epoch: the epoch of the batches, from 0.

    Example:
    ```python
    batches = ImageBatches(ImageFolder("photos", 64), batch_size=8, seed=0)
    images, indices = batches[0]  # uint8 (8, 64, 64, 3), int32 (8,)
    ```
    """

    def __init__(
        self,
        source: _Source,
        batch_size: int = 128,
        seed: int | None = 0,
        drop_remainder: bool = False,
        prefetch: int = 2,
        on_device: bool = False,
        sliding_window: SlidingWindow | None = None,
    ) -> None:
        whole = (0, 1) if seed is None else None  # for predict, in which processes work alone
        super().__init__(len(source), batch_size, seed, drop_remainder, sliding_window, whole)
        require_number("prefetch", prefetch, 0)
        self.source, self.prefetch = source, prefetch
        self._resident = keras.ops.convert_to_tensor(source.images()) if on_device else None
        self._ahead: OrderedDict[tuple[int, int], Callable[[], np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The Manifest of the source."""
        return self.source.manifest

    @property
    def fingerprint(self) -> str:
        """That of the manifest."""
        return self.manifest.fingerprint

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        """``(images, indices)`` of one batch of this epoch; ``(images,)`` without a seed."""
        step = self._step(number)
        indices = self.own_indices(self.epoch, step)
        images = self._decoded(step) if self._resident is None else self._gathered(indices)
        return (images,) if self.seed is None else (images, indices)

    def _gathered(self, indices: np.ndarray) -> Tensor:
        return keras.ops.take(self._resident, indices, axis=0)

    def _decoded(self, step: int) -> np.ndarray:
        """The images of a batch; threads begin to decode the next ones."""
        wanted = [(self.epoch, s) for s in range(step, min(step + 1 + self.prefetch, len(self)))]
        with self._lock:
            for key in [key for key in self._ahead if key not in wanted]:
                del self._ahead[key]
            for key in wanted:
                if key not in self._ahead:
                    self._ahead[key] = self.source.start(self.own_indices(*key))
            wait = self._ahead.pop(wanted[0])
        start = time.perf_counter()
        images = wait()
        self.seconds_waited += time.perf_counter() - start
        return images

    def on_epoch_end(self) -> None:
        """Forget what was decoded ahead."""
        self._ahead.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ahead": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class ArrayBatches(OrderedBatches):
    """Batches of arrays in memory, in an order that is a pure function of the seed and the epoch.

    Args:
        x: array, or nested dicts and lists of arrays, with the images along the first axis.
        y: the instance index of each image, ``(n,)``.
        sample_weight: ``(n,)``, or None.
        batch_size: images per batch; the last batch of an epoch holds the rest.
        seed: of the order, an integer; None keeps the order of the arrays in every epoch.
        sliding_window, part: see ``OrderedBatches``.

    Attributes:
        epoch: the epoch of the batches, from 0; a training loop of your own sets it.

    Raises:
        ValueError: arrays of different lengths.

    Example:
    ```python
    batches = ArrayBatches(images, indices, batch_size=8, seed=0)
    for epoch in range(2):
        batches.epoch = epoch
        for some_images, their_indices in batches:
            print(their_indices)  # or train
    ```
    """

    def __init__(
        self,
        x: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        batch_size: int = 32,
        seed: int | None = None,
        sliding_window: SlidingWindow | None = None,
        part: tuple[int, int] | None = None,
    ) -> None:
        parts = [x, np.asarray(y)] + ([] if sample_weight is None else [np.asarray(sample_weight)])
        super().__init__(len(parts[1]), batch_size, seed, False, sliding_window, part)
        self._arrays = tuple(keras.tree.map_structure(_on_host, part) for part in parts)
        lengths = {len(array) for array in keras.tree.flatten(self._arrays)}
        require(
            len(lengths) == 1,
            f"arrays of lengths {sorted(lengths)}",
            "as many indices, and sample weights, as images",
        )

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """``(x, y)`` or ``(x, y, sample_weight)`` of one batch of this epoch."""
        indices = self.own_indices(self.epoch, self._step(number))
        return keras.tree.map_structure(lambda array: array[indices], self._arrays)

    @property
    def fingerprint(self) -> str:
        """A digest of the arrays; of indices the values count, and not how wide they are."""
        digest = hashlib.blake2b(digest_size=16)
        x, y, *weights = self._arrays
        indices = y.astype("int64") if y.dtype.kind in "iu" else y
        for array in keras.tree.flatten((x, indices, weights)):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def _on_host(array: Tensor) -> np.ndarray:
    """The values of an array or of a tensor on any device, as NumPy."""
    return array if isinstance(array, np.ndarray) else keras.ops.convert_to_numpy(array)
