"""Batches of images and their instance indices, the same for the same seed and epoch."""

import threading
from collections import OrderedDict

import keras
import numpy as np

from instdisc_core.validation import require_count, require_number


class ImageBatches(keras.utils.PyDataset):
    """Batches of an ImageSource, in an order that is a pure function of the seed and the epoch.

    So a run can be repeated, and one that was interrupted goes on with the batches it would have
    had. ``InstanceDiscrimination.fit`` sets ``epoch``; in a loop of your own, set it yourself.
    While a batch is being trained on, threads decode the next ones.

    Args:
        source: the ImageSource.
        batch_size: images a batch; the last one of an epoch holds what is left.
        seed: of the order, an integer; None keeps the order of the indices in every epoch, and
            yields images alone, for ``predict``.
        drop_remainder: leave out what does not fill a batch: other images in each epoch. It saves
            a compilation for the odd shape. Where all images don't fill one, it is kept.
        prefetch: batches that are decoded ahead.
        on_device: keep all images where Keras computes, and gather batches there. It spares the
            way from the host's memory, for a set that fits an accelerator's.

    Attributes:
        epoch: which epoch the batches are of, from 0.

    Example:
    ```python
    batches = ImageBatches(ImageFolder("photos", 64), batch_size=128, seed=0)
    images, indices = batches[0]  # uint8 (128, 64, 64, 3), int32 (128,)
    ```
    """

    def __init__(
        self,
        source,
        batch_size=128,
        seed=0,
        drop_remainder=False,
        prefetch=2,
        on_device=False,
    ):
        super().__init__()
        require_count("batch_size", batch_size)
        require_number("prefetch", prefetch, 0)
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.drop_remainder, self.prefetch = drop_remainder, prefetch
        self._resident = keras.ops.convert_to_tensor(source.images()) if on_device else None
        self.epoch = 0
        self._order: tuple = (None, None)
        self._ahead: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    @property
    def manifest(self):
        """The Manifest of the source."""
        return self.source.manifest

    def __len__(self):
        n = len(self.source)
        return max(1, n // self.batch_size) if self.drop_remainder else -(-n // self.batch_size)

    def order(self, epoch):
        """The instance indices of an epoch in their order, int32 ``(n,)``."""
        if self.seed is None:
            return np.arange(len(self.source), dtype="int32")
        rng = np.random.default_rng((self.seed, epoch))
        return rng.permutation(len(self.source)).astype("int32")

    def indices(self, epoch, step):
        """The instance indices of one batch."""
        if self._order[0] != epoch:
            self._order = epoch, self.order(epoch)
        return self._order[1][step * self.batch_size : (step + 1) * self.batch_size]

    def __getitem__(self, step):
        """``(images, indices)`` of one batch of this epoch; ``(images,)`` without a seed."""
        if not 0 <= step < len(self):
            raise IndexError(f"Received: batch {step}. Expected one of 0 to {len(self) - 1}.")
        indices = self.indices(self.epoch, step)
        images = self._decoded(step) if self._resident is None else self._gathered(indices)
        return (images,) if self.seed is None else (images, indices)

    def _gathered(self, indices):
        return keras.ops.take(self._resident, indices, axis=0)

    def _decoded(self, step):
        """The images of a batch, and begin to decode the next ones."""
        wanted = [(self.epoch, s) for s in range(step, min(step + 1 + self.prefetch, len(self)))]
        with self._lock:
            for key in [key for key in self._ahead if key not in wanted]:
                del self._ahead[key]
            for key in wanted:
                if key not in self._ahead:
                    self._ahead[key] = self.source.start(self.indices(*key))
            wait = self._ahead.pop(wanted[0])
        return wait()

    def on_epoch_end(self):
        """Forget what was decoded ahead."""
        self._ahead.clear()

    def __getstate__(self):
        return {**self.__dict__, "_ahead": OrderedDict(), "_lock": None}

    def __setstate__(self, state):
        self.__dict__.update(state, _lock=threading.Lock())
