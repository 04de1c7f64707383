"""The base of all image sources, and a subset of a source."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from instdisc_core.data.batches import ImageBatches
from instdisc_core.data.decoding import thumbnail
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.order import SlidingWindow
from instdisc_core.validation import check_indices, require, require_count

CACHE_BYTES = 2**31  # the most that "auto" keeps decoded in memory


class ImageSource:
    """Numbered images of one size: image ``i`` is instance ``i``.

    Args:
        manifest: the Manifest of the images.
        size: ``(height, width)`` in pixels.
        labels: integers ``(n,)``, or None.
        class_names: what each label means, or None.
        workers: threads that decode; None is one for each core.
        pixels: uint8 ``(n, height, width, 3)``, if the images are in memory.

    Attributes:
        names: of the images, strings: a file's path, or ``"image 17"``.
        labels: integers ``(n,)``, or None where no classes are known. For evaluation only.
        class_names: what each label means, a list of strings, or None.
        manifest: the Manifest.
        size: ``(height, width)`` in pixels.
        workers: threads that decode.

    Example: ``pixels = photos.images([0, 3])``
    """

    def __init__(
        self,
        manifest: Manifest,
        size: tuple[int, int],
        labels: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        workers: int | None = None,
        pixels: np.ndarray | None = None,
    ) -> None:
        self.workers = threads(workers)
        self.manifest, self.size = manifest, size
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None:
            require(
                self.labels.shape == (len(manifest),),
                f"labels of shape {self.labels.shape} for {len(manifest)} images",
                "one label for each image",
            )
            outside = class_names is not None and (self.labels < 0) | (
                self.labels >= len(class_names)
            )
            require(
                not np.any(outside),
                f"labels from {self.labels.min()} to {self.labels.max()} of "
                f"{len(class_names or ())} classes",
                "the number of a class name for each image",
                "Leave out images without a label, or all labels.",
            )
        self.class_names = class_names
        self._pixels: np.ndarray | None = None
        self._executor: ThreadPoolExecutor | None = None
        if pixels is not None:
            self._keep(pixels)

    def _keep(self, pixels: np.ndarray) -> None:
        """Hold the decoded images in memory, as a view that cannot be written to."""
        self._pixels = pixels.view()
        self._pixels.flags.writeable = False

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each image."""
        return self.manifest.names

    def __len__(self) -> int:
        return len(self.manifest)

    def image(self, index: int) -> np.ndarray:
        """Pixels ``(height, width, 3)`` of one image, uint8."""
        return self._decode(index) if self._pixels is None else self._pixels[index]

    def thumbnail(self, index: int, side: int = 160) -> np.ndarray:
        """The whole image, its longer side at most ``side`` pixels, uint8.

        It is made from the file, or from the image as the data set holds it, where there is one.

        Example: ``small = photos.thumbnail(3, side=16)``
        """
        return thumbnail(self.image(index), side)

    def images(self, indices: ArrayLike | None = None) -> np.ndarray:
        """Pixels ``(len(indices), height, width, 3)``, uint8, decoded in parallel.

        Args:
            indices: integers in ``[0, len(self))``, any number of them; None is all images in
                order.

        Raises:
            ValueError: other indices, such as a mask.

        Example: ``first_ten = photos.images(range(10))``
        """
        return self.start(np.arange(len(self)) if indices is None else indices)()

    def subset(self, indices: ArrayLike) -> "ImageSource":
        """A source of some of the images, which are renumbered from 0.

        Args:
            indices: integers in ``[0, len(self))``, all different, at least one.

        Example: ``tenth = photos.subset(range(0, len(photos), 10))``
        """
        return _Subset(self, indices)

    def start(self, indices: ArrayLike) -> Callable[[], np.ndarray]:
        """Begin to decode images, and return a function that waits for them and returns them."""
        chosen = np.asarray(check_indices(indices, len(self), of="images"))
        if self._pixels is not None:
            kept = self._pixels
            return lambda: kept[chosen]
        pixels = np.empty((len(chosen), *self.size, 3), "uint8")

        def fill(positions: np.ndarray) -> None:
            for position in positions:
                pixels[position] = self._decode(int(chosen[position]))

        parts = np.array_split(np.arange(len(chosen)), self.workers)
        futures = [self.executor.submit(fill, part) for part in parts]

        def wait() -> np.ndarray:
            for future in futures:
                future.result()
            return pixels

        return wait

    def _decode(self, index: int) -> np.ndarray:
        """Read one image that is not in memory."""
        raise NotImplementedError

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The threads that decode; they start at their first use."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.workers, "instdisc-decode")
        return self._executor

    def batches(
        self,
        batch_size: int = 128,
        seed: int | None = None,
        *,
        drop_remainder: bool = False,
        prefetch: int = 2,
        on_device: bool = False,
        sliding_window: SlidingWindow | None = None,
    ) -> ImageBatches:
        """Batches of ``(images, indices)`` for ``fit``, every epoch in another order.

        Args:
            batch_size, drop_remainder, prefetch, on_device: see ``ImageBatches``.
            sliding_window: see ``SlidingWindow``; None shows every image once in each epoch.
            seed: of the order; None draws one, so that no other run has that order.

        Raises:
            ValueError: the source has one image, or fewer than the window.

        Example: ``model.fit(photos.batches(10, seed=0), epochs=1)``
        """
        require(
            len(self) > 1,
            f"one image, {self.names[0]!r}",
            "at least 2 to train on: one image has no other to be told apart from",
        )
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        return ImageBatches(
            self, batch_size, seed, drop_remainder, prefetch, on_device, sliding_window
        )

    def ordered(
        self, batch_size: int = 256, *, prefetch: int = 2, on_device: bool = False
    ) -> ImageBatches:
        """Batches of images alone, in the order of their indices, for ``predict``.

        See ``ImageBatches``.

        Example: ``embeddings = model.predict(photos.ordered())``
        """
        return ImageBatches(self, batch_size, None, prefetch=prefetch, on_device=on_device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_executor": None}


class _Subset(ImageSource):
    """Some images of another source."""

    def __init__(self, whole: ImageSource, indices: ArrayLike) -> None:
        chosen = np.asarray(check_indices(indices, len(whole), of="images"))
        require(len(chosen) > 0, "no indices", "at least one")
        self.whole, self.indices = whole, chosen
        super().__init__(
            whole.manifest.subset(chosen),
            whole.size,
            None if whole.labels is None else whole.labels[chosen],
            whole.class_names,
            whole.workers,
            None if whole._pixels is None else whole._pixels[chosen],
        )

    def thumbnail(self, index: int, side: int = 160) -> np.ndarray:
        """See ``ImageSource``."""
        return self.whole.thumbnail(int(self.indices[index]), side)

    def _decode(self, index: int) -> np.ndarray:
        return self.whole.image(int(self.indices[index]))


def fits(count: int, size: tuple[int, int]) -> bool:
    """Whether so many images are few enough to be kept decoded in memory."""
    return count * 3 * size[0] * size[1] <= CACHE_BYTES


def threads(workers: int | None) -> int:
    """How many threads decode: ``workers``, or one for each core."""
    if workers is None:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        return usable or os.cpu_count() or 1
    require_count("workers", workers)
    return workers
