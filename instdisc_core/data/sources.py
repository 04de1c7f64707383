"""Where images come from: what all sources share, arrays, and data sets that can be indexed."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from instdisc_core.data.batches import ImageBatches
from instdisc_core.data.decoding import decode
from instdisc_core.data.manifest import Manifest
from instdisc_core.validation import require, require_count, require_size

CACHE_BYTES = 2**31  # what "auto" keeps decoded in memory


class ImageSource:
    """Images of one size, numbered: image ``i`` is instance ``i`` wherever it is used.

    Attributes:
        names: of the images, strings: a file's path, or ``"image 17"``.
        labels: integers ``(n,)``, or None where no classes are known. For evaluation only.
        class_names: what each label means, a list of strings, or None.
        manifest: the Manifest.
        size: ``(height, width)`` in pixels.
        workers: threads that decode.
    """

    def __init__(self, manifest, size, labels=None, class_names=None, workers=None, pixels=None):
        self.workers = threads(workers)
        self.manifest, self.size = manifest, tuple(size)
        self.labels = None if labels is None else np.asarray(labels)
        require(
            self.labels is None or self.labels.shape == (len(manifest),),
            f"labels of shape {np.shape(labels)} for {len(manifest)} images",
            "one label for each image",
        )
        self.class_names = class_names
        self._pixels, self._executor = None, None
        if pixels is not None:
            self._keep(pixels)

    def _keep(self, pixels):
        """Hold the decoded images in memory, as a view that nobody can write through."""
        self._pixels = pixels.view()
        self._pixels.flags.writeable = False

    @property
    def names(self):
        """What to call each image."""
        return self.manifest.names

    def __len__(self):
        return len(self.manifest)

    def image(self, index):
        """Pixels ``(height, width, 3)`` of one image, uint8."""
        return self._decode(index) if self._pixels is None else self._pixels[index]

    def images(self, indices=None):
        """Pixels ``(len(indices), height, width, 3)``, uint8, decoded in parallel.

        Args:
            indices: integers in ``[0, len(self))``, any number of them; None is all images in
                order.

        Raises:
            ValueError: other indices, such as a mask.
        """
        return self.start(np.arange(len(self)) if indices is None else indices)()

    def subset(self, indices):
        """Some of the images as a source of its own, in which they are renumbered from 0.

        Example: ``tenth = source.subset(range(0, len(source), 10))``
        """
        return _Subset(self, indices)

    def start(self, indices):
        """Begin to decode images, and return a function that waits for them and returns them."""
        indices = _checked(indices, len(self))
        if self._pixels is not None:
            return lambda: self._pixels[indices]
        pixels = np.empty((len(indices), *self.size, 3), "uint8")

        def fill(positions):
            for position in positions:
                pixels[position] = self._decode(int(indices[position]))

        parts = np.array_split(np.arange(len(indices)), self.workers)
        futures = [self.executor.submit(fill, part) for part in parts]

        def wait():
            for future in futures:
                future.result()
            return pixels

        return wait

    def _decode(self, index):
        """Read one image that is not in memory."""
        raise NotImplementedError

    @property
    def executor(self):
        """The threads that decode; they start when first wanted."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.workers, "instdisc-decode")
        return self._executor

    def batches(self, batch_size=128, seed=None, **kwargs):
        """Batches of ``(images, indices)`` for ``fit``, every epoch in another order.

        See ``ImageBatches``.
        """
        require(
            len(self) > 1,
            f"one image, {self.names[0]!r}",
            "at least 2 to train on: with one there is nothing to tell it from",
        )
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        return ImageBatches(self, batch_size, seed, **kwargs)

    def ordered(self, batch_size=256, **kwargs):
        """Batches of images alone, in the order of their indices, for ``predict``."""
        return ImageBatches(self, batch_size, None, **kwargs)

    def __getstate__(self):
        return {**self.__dict__, "_executor": None}


class ImageArray(ImageSource):
    """Images that are in memory.

    Args:
        images: uint8 ``(n, height, width, 3)``; not copied: leave them as they are.
        labels: ``(n,)``, integers or strings, or None.
        names: n strings; None is ``"image 0"``, ``"image 1"``, ...
        class_names: what integer labels mean.

    Raises:
        ValueError: images of another dtype or shape, or none.

    Example: ``ImageArray(x_train).batches(128, seed=0)``
    """

    def __init__(self, images, labels=None, names=None, class_names=None):
        images = np.asarray(images)
        require(
            images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3,
            f"images of dtype {images.dtype} and shape {images.shape}",
            "uint8 in [0, 255], of shape (n, height, width, 3)",
            "Convert them, for example with (255 * images).round().astype('uint8').",
        )
        require(len(images) > 0, "no images", "at least one")
        names = [f"image {i}" for i in range(len(images))] if names is None else list(names)
        require(
            len(names) == len(images),
            f"{len(names)} names for {len(images)} images",
            "one name for each image",
        )
        labels, found = numbered(labels)
        class_names = class_names or found
        manifest = Manifest.of_pixels(tuple(names), images)
        super().__init__(manifest, images.shape[1:3], labels, class_names, pixels=images)


class ImageDataset(ImageSource):
    """A data set that can be indexed: PyTorch's, Hugging Face's, Grain's, or a list.

    An element is an image, a tuple that begins with one, or a dict with one; an image is what
    ``decode`` takes, or a PyTorch tensor ``(channels, height, width)``. A torch data set must
    return the image itself: without a random augmentation, which belongs into the model.

    Args:
        dataset: with ``len`` and integer indices. Its own order is that of the instances.
        size: see ``ImageFolder``.
        image: name of the image in a dict; None looks for ``"image"`` and ``"img"``.
        labels: ``(n,)``; or ``"inferred"``, which takes those of Hugging Face's column ``label``
            and of torchvision's ``targets``; or None for no labels.
        cache: see ``ImageFolder``. Without a cache no image is read at the start, so that the
            manifest holds no digests, and cannot tell one data set from another of that length.
        workers: see ``ImageFolder``. Give 1 for a data set that threads cannot share.

    Raises:
        ValueError: a data set that cannot be indexed, is empty, or holds no images.

    Example: ``ImageDataset(datasets.load_dataset("cifar10", split="train"), size=32)``
    """

    def __init__(self, dataset, size, image=None, labels="inferred", cache="auto", workers=None):
        require(
            hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"),
            f"a {type(dataset).__name__}",
            "a data set with len() and integer indices",
            "For a stream give fit (image, index) pairs, numbered before any shuffling, such as "
            "stream.enumerate().map(lambda i, image: (image, i)).batch(128) in tf.data.",
        )
        require(len(dataset) > 0, "an empty data set", "at least one image")
        self.dataset = dataset
        self._image = image
        n, size = len(dataset), require_size(size)
        names = tuple(f"image {i}" for i in range(n))
        unread = Manifest(names, (0,) * n, (0,) * n, ("",) * n)
        labels, class_names = self._labels() if is_inferred(labels) else numbered(labels)
        super().__init__(unread, size, labels, class_names, workers)
        self.image(0)  # what is wrong with all images is wrong with the first
        if fits(n, size) if cache == "auto" else cache:
            self._keep(self.images())
            self.manifest = Manifest.of_pixels(names, self._pixels)

    def _decode(self, index):
        try:
            return decode(pixels_of(self.dataset[index], self._image), self.size)
        except ValueError as error:
            raise ValueError(
                f"Received: element {index} of the data set, which is no image ({error}). "
                "Expected an image, a tuple that begins with one, or a dict with one."
            ) from error

    def _labels(self):
        """Labels and class names where they can be had without decoding any image."""
        columns = getattr(self.dataset, "features", None)
        if isinstance(columns, dict) and "label" in columns:  # Hugging Face
            names = getattr(columns["label"], "names", None)
            return np.asarray(self.dataset["label"][:]), names
        if hasattr(self.dataset, "targets"):  # torchvision
            classes = getattr(self.dataset, "classes", None)
            return np.asarray(self.dataset.targets), None if classes is None else list(classes)
        return None, None


class _Subset(ImageSource):
    """Some images of another source."""

    def __init__(self, whole, indices):
        indices = _checked(indices, len(whole))
        require(len(indices) > 0, "no indices", "at least one")
        self.whole, self.indices = whole, indices
        super().__init__(
            whole.manifest.subset(indices),
            whole.size,
            None if whole.labels is None else whole.labels[indices],
            whole.class_names,
            whole.workers,
            None if whole._pixels is None else whole._pixels[indices],
        )

    def _decode(self, index):
        return self.whole.image(int(self.indices[index]))


def _checked(indices, count):
    """Indices of images as an array; raise unless each is one of so many."""
    indices = np.asarray(indices)
    if indices.shape == (0,):
        return indices.astype("int64")
    require(
        indices.ndim == 1 and indices.dtype.kind in "iu",
        f"indices of dtype {indices.dtype} and shape {indices.shape}",
        "integers of shape (n,)",
        "A mask has the indices np.flatnonzero(mask).",
    )
    require(
        indices.min() >= 0 and indices.max() < count,
        f"indices from {indices.min()} to {indices.max()}",
        f"values in [0, {count})",
    )
    return indices


def pixels_of(element, key=None):
    """The image of a data set's element, as ``decode`` takes it."""
    if isinstance(element, dict):
        names = [key] if key else ["image", "img"]
        found = [name for name in names if name in element]
        if not found:
            raise ValueError(f"a dict with {sorted(element)} and without {' or '.join(names)}")
        element = element[found[0]]
    image = element[0] if isinstance(element, (tuple, list)) else element
    if type(image).__module__.split(".")[0] == "torch":
        image = np.moveaxis(np.asarray(image), 0, -1) if image.ndim == 3 else np.asarray(image)
    return image


def is_inferred(labels) -> bool:
    """Whether labels are to be those that the data have, and not given as an array."""
    return isinstance(labels, str) and labels == "inferred"


def numbered(labels):
    """Integer labels as they are, and no names; others as numbers of their sorted names."""
    if labels is None:
        return None, None
    labels = np.asarray(labels)
    if labels.dtype.kind in "iu":
        return labels, None
    names, numbers = np.unique(labels, return_inverse=True)
    return numbers, names.tolist()


def fits(count, size):
    """Whether so many images are few enough to be kept decoded in memory."""
    return count * 3 * size[0] * size[1] <= CACHE_BYTES


def threads(workers):
    """How many threads decode: as many as were asked for, or one for each core."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    require_count("workers", workers)
    return workers
