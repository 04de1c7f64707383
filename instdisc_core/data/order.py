"""Orders of images that are functions of seed and epoch."""

from dataclasses import dataclass

import keras
import numpy as np

from instdisc_core.communicator import get_communicator
from instdisc_core.data.manifest import Manifest
from instdisc_core.validation import require, require_count


@dataclass(frozen=True)
class SlidingWindow:
    """An order in which images come again soon: from a window that moves over all of them.

    The images are put on a circle, in random order. Window ``k`` holds the ``window`` images from
    position ``k * stride`` on, so that two windows in turn share ``window - stride`` images. All
    images of a window are shown once, in random order, and then those of the next window. Where
    ``stride`` does not divide their number, the windows at the end of the circle are smaller.

    An epoch shows as many images as there are, some of them several times and others not at all.
    In ``window / stride`` epochs, one way around the circle, each image is shown exactly so many
    times. If batches leave out a remainder, one way around is a few steps longer.

    Args:
        window: images in a window, a multiple of ``stride``.
        stride: how many images the window moves on, at least 1.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Cao et al., NeurIPS 2020 (PIC), section 3: with the parametric softmax, an image that is not
        seen for long is forgotten.

    Example: ``batches = photos.batches(8, seed=0, sliding_window=SlidingWindow(20, stride=5))``
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        require_count("stride", self.stride)
        require_count("window", self.window)
        require(
            self.window % self.stride == 0,
            f"window={self.window} and stride={self.stride}",
            "a window that is a multiple of the stride, so that all images are seen equally often",
            f"Set window={max(1, self.window // self.stride) * self.stride}.",
        )

    def require_fits(self, num_images: int) -> None:
        """Raise if there are fewer images than in a window.

        Raises:
            ValueError: there are.
        """
        largest = num_images // self.stride * self.stride
        fitting = f"window={largest}" if largest else f"window and stride to at most {num_images}"
        require(
            self.window <= num_images,
            f"{self} of {num_images} images",
            "a window of at most all images",
            f"Set {fitting}, or train without a window; in a recipe it is sliding_window.",
        )

    def order(self, num_images: int, seed: int, start: int, count: int) -> np.ndarray:
        """Part of the endless sequence of images.

        Args:
            num_images: ``n``, at least ``window``.
            seed: of the circle and of the order in each window.
            start: how many images of the sequence are left out, at least 0.
            count: how many follow.

        Returns:
            Indices, int32 ``(count,)``.

        Example: ``SlidingWindow(20, 5).order(num_images=40, seed=0, start=0, count=40)``
        """
        circle = np.random.default_rng(seed).permutation(num_images).astype("int32")
        first = np.arange(0, num_images, self.stride)  # of each window on the circle
        missing = len(first) * self.stride - num_images  # images of the last stride
        beyond = first + self.window >= len(first) * self.stride
        sizes = self.window - missing * beyond
        ends = np.cumsum(sizes)
        found = [circle[:0]]
        while count > 0:
            lap, offset = divmod(start, int(ends[-1]))
            k = int(np.searchsorted(ends, offset, side="right"))
            held = circle[(first[k] + np.arange(sizes[k])) % num_images]
            shuffled = np.random.default_rng((seed, lap, k)).permutation(held)
            found.append(shuffled[int(sizes[k] - (ends[k] - offset)) :][:count])
            start, count = start + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)


class OrderedBatches(keras.utils.PyDataset):
    """Batches in an order that is a pure function of the seed and the epoch.

    Where several processes train together, ``batch_size`` is that of all of them, and each yields
    its own part of every batch. Of a small last batch it may be no image.

    Args:
        num_images: the number of images.
        batch_size: images per batch; the last batch of an epoch holds the rest.
        seed: of the order, an integer; None keeps the order of the indices in every epoch.
        drop_remainder: leave out the images that do not fill a batch.
        sliding_window: a SlidingWindow, which orders the images of all epochs; None shows every
            image once in each epoch.

    Attributes:
        epoch: the epoch of the batches, from 0.
        start: the first batches of this epoch that are left out, because they were trained on.
        seconds_waited: for images that were not decoded yet when they were needed, in all epochs.

    Raises:
        ValueError: a window that is larger than ``num_images``, or a window without a seed.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int | None,
        drop_remainder: bool = False,
        sliding_window: SlidingWindow | None = None,
        part: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        require_count("batch_size", batch_size)
        if sliding_window is not None:
            require(
                seed is not None,
                f"{sliding_window} and seed=None",
                "a seed, from which the order of the images is drawn",
                "Set seed=0.",
            )
            sliding_window.require_fits(num_images)
        self.sliding_window = sliding_window
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.drop_remainder = drop_remainder
        self.epoch, self.start, self.seconds_waited = 0, 0, 0.0
        if part is None:
            own = get_communicator()
            part = own.process, own.processes
        self.part, self.devices = part, 1
        self._order: tuple[int | None, np.ndarray] = (None, np.arange(0))

    def __len__(self) -> int:
        n = self.num_images
        return max(1, n // self.batch_size) if self.drop_remainder else -(-n // self.batch_size)

    @property
    def num_batches(self) -> int:
        """The number of batches of this epoch to train on."""
        return len(self) - self.start

    @property
    def manifest(self) -> Manifest | None:
        """The Manifest of the images, or None where they have no names."""
        return None

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that no other data have."""
        raise NotImplementedError

    def order(self, epoch: int) -> np.ndarray:
        """The instance indices of an epoch in their order, int32 ``(n,)``.

        A sliding window gives those that are trained on: fewer than ``n`` with ``drop_remainder``.
        """
        if self.seed is None:
            return np.arange(self.num_images, dtype="int32")
        if self.sliding_window is not None:
            count = min(self.num_images, len(self) * self.batch_size)
            return self.sliding_window.order(self.num_images, self.seed, epoch * count, count)
        rng = np.random.default_rng((self.seed, epoch))
        return rng.permutation(self.num_images).astype("int32")

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """The instance indices of one batch of a whole epoch, in all processes."""
        known, order = self._order
        if known != epoch:
            order = self.order(epoch)
            self._order = epoch, order
        return order[step * self.batch_size : (step + 1) * self.batch_size]

    def own_indices(self, epoch: int, step: int) -> np.ndarray:
        """The part of ``indices`` that this process yields.

        If ``devices`` must divide the batch equally, the last index fills it up.
        """
        indices, (part, parts) = self.indices(epoch, step), self.part
        if self.devices == 1:
            return indices[len(indices) * part // parts : len(indices) * (part + 1) // parts]
        held = -(-len(indices) // self.devices) * (self.devices // parts)
        return indices[np.minimum(np.arange(held) + part * held, len(indices) - 1)]

    def _step(self, number: int) -> int:
        """The step of the epoch in which batch ``number`` is trained on."""
        if not 0 <= number < self.num_batches:
            last = self.num_batches - 1
            raise IndexError(f"Received: batch {number}. Expected one of 0 to {last}.")
        return self.start + number
