"""Where images come from: a folder, an array, or any data set that can be indexed."""

import os
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from instdisc_core.data.batches import ImageBatches
from instdisc_core.data.decoding import SUFFIXES, decode, read
from instdisc_core.data.manifest import Manifest, digest, listed
from instdisc_core.validation import require, require_count

CACHE_BYTES = 2**31  # what "auto" keeps decoded in memory
SLAB = 4096  # files that are submitted to the threads at a time


class ImageSource:
    """Images of one size, numbered: image ``i`` is instance ``i`` wherever it is used.

    Attributes:
        names: of the images, a list of strings: a file's path, or ``"image 17"``.
        labels: integers ``(n,)``, or None where no classes are known. For evaluation only.
        class_names: what each label means, a list of strings, or None.
        manifest: the Manifest.
        size: ``(height, width)`` in pixels.
        workers: threads that decode.
    """

    def __init__(self, manifest, size, labels=None, class_names=None, workers=None, pixels=None):
        self.workers = _workers(workers)
        self.manifest, self.size = manifest, tuple(size)
        self.labels = None if labels is None else np.asarray(labels)
        require(
            self.labels is None or self.labels.shape == (len(manifest),),
            f"labels of shape {np.shape(labels)} for {len(manifest)} images",
            "one label for each image",
        )
        self.class_names = class_names
        self._pixels, self._executor = pixels, None

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
            indices: integers; None is all images in order.
        """
        return self.start(np.arange(len(self)) if indices is None else np.asarray(indices))()

    def subset(self, indices):
        """Some of the images as a source of its own, in which they are numbered anew from 0.

        Example: ``tenth = source.subset(range(0, len(source), 10))``
        """
        return _Subset(self, np.asarray(indices))

    def start(self, indices):
        """Begin to decode images, and return a function that waits for them and returns them."""
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


class ImageFolder(ImageSource):
    """The images in a folder and its subfolders, in the order of their names.

    If every image lies in a subfolder, and there are several, the first part of a path is an
    image's class; else the folder is flat and there are no labels.

    Args:
        folder: its path.
        size: height and width in pixels to which images are brought, one integer or a pair: the
            largest central part of that shape, resized.
        corrupt: what to do about files that are no images or broken ones: ``"refuse"`` raises an
            error that names them; ``"skip"`` leaves them out and lists them in
            ``manifest.skipped``.
        duplicates: about files with equal bytes: ``"warn"``, ``"drop"`` (all but the first of
            each, listed in ``manifest.skipped``) or ``"keep"``. The objective would push an image
            from its copy.
        manifest: path of a CSV file. If it is there, the folder is checked against it, its order
            holds, and files that are new are left out with a warning; otherwise it is written.
        cache: keep the decoded images in memory; ``"auto"`` where that takes at most 2 GiB.
            Without a cache broken files are found at the start only with ``corrupt="skip"``; else
            when their turn comes.
        workers: threads that decode; None is one for each core.

    Raises:
        ValueError: the folder does not exist or holds no images, a file is broken, or the folder
            is not that of the manifest. The message names the files.

    Example:
    ```python
    photos = ImageFolder("photos", size=64, corrupt="skip")
    model.fit(photos.batches(128, seed=0), epochs=200)
    embeddings = model.predict(photos.ordered())
    ```
    """

    def __init__(
        self,
        folder,
        size,
        corrupt="refuse",
        duplicates="warn",
        manifest=None,
        cache="auto",
        workers=None,
    ):
        _require_choice("corrupt", corrupt, ("refuse", "skip"))
        _require_choice("duplicates", duplicates, ("warn", "drop", "keep"))
        _require_choice("cache", cache, ("auto", True, False))
        self.folder, size = Path(folder), _size(size)
        names = _image_files(self.folder)
        known = Manifest.load(manifest) if manifest and Path(manifest).exists() else None
        if known:
            names = self._names_of(known, names)
        pixel_bytes = 3 * size[0] * size[1]
        cached = len(names) * pixel_bytes <= CACHE_BYTES if cache == "auto" else cache
        pixels = np.empty((len(names), *size, 3), "uint8") if cached else None
        decoding = size if cached or corrupt == "skip" else None
        sizes, modified, digests, problems = self._scan(names, decoding, pixels, known, workers)
        skipped = dict(known.skipped) if known else {}
        if problems and (corrupt == "refuse" or known):
            described = [f"{name} ({reason})" for name, reason in problems.items()]
            require(
                False,
                f"{len(problems)} of {len(names)} files in {self.folder} that cannot be read: "
                + listed(described),
                "images",
                "Mend or remove them, or leave them out by corrupt='skip'.",
            )
        skipped |= problems
        if duplicates != "keep" and not known:
            skipped |= self._copies(names, digests, problems, drop=duplicates == "drop")
        keep = [i for i, name in enumerate(names) if name not in skipped or known]
        require(
            bool(keep),
            f"{self.folder}, all of whose {len(names)} image files are broken: "
            + listed([f"{name} ({reason})" for name, reason in problems.items()]),
            "at least one image",
        )
        if cached and len(keep) < len(names):
            pixels = pixels[keep]
        columns = ([column[i] for i in keep] for column in (names, sizes, modified, digests))
        found = Manifest(*(tuple(column) for column in columns), skipped)
        if known:
            known.check(found, str(self.folder))
        elif manifest:
            found.save(manifest)
        labels, class_names = _classes(found.names)
        super().__init__(found, size, labels, class_names, workers, pixels)

    def _decode(self, index):
        try:
            return read(self.folder / self.names[index], self.size)[1]
        except ValueError as error:
            raise ValueError(
                f"Received: {self.folder / self.names[index]}, instance {index}, which cannot be "
                f"read ({error}). Expected the image that was there when the folder was listed. "
                "Restore it, or list the folder anew by ImageFolder(..., corrupt='skip')."
            ) from error

    def _names_of(self, known, names):
        """The names in the manifest's order, without files that came later."""
        there = set(names)
        gone = [name for name in known.names if name not in there]
        require(
            not gone,
            f"{self.folder}, in which {len(gone)} of the manifest's {len(known)} files are "
            f"missing: {listed(gone)}",
            "the files that the manifest lists",
            "Restore them; or delete the manifest, and train anew on what is there now.",
        )
        new = there - set(known.names) - set(known.skipped)
        if new:
            warnings.warn(
                f"{len(new)} files in {self.folder} are not in its manifest and are left out: "
                f"{listed(sorted(new))}. To train on them, delete the manifest and train anew.",
                stacklevel=3,
            )
        return list(known.names)

    def _scan(self, names, decoding, pixels, known, workers):
        """Read all files once, and return sizes, times, digests, and what was wrong with which.

        Args:
            names: of the files.
            decoding: the size to decode to, or None to look at no image.
            pixels: the array to fill with what was decoded, or None.
            known: the manifest. A file of the size and time that it lists is the same file, and
                is not read again if nothing is decoded.
        """
        n = len(names)
        sizes, modified, digests, problems = [0] * n, [0] * n, [""] * n, {}

        def look(i):
            path = self.folder / names[i]
            try:
                status = path.stat()
                sizes[i], modified[i] = status.st_size, status.st_mtime_ns
                same = known and (sizes[i], modified[i]) == (known.sizes[i], known.modified[i])
                if decoding is None:
                    digests[i] = known.digests[i] if same else digest(path.read_bytes())
                    return
                data, image = read(path, decoding)
                digests[i] = digest(data)
                if pixels is not None:
                    pixels[i] = image
            except (OSError, ValueError) as error:
                problems[names[i]] = str(error)

        with ThreadPoolExecutor(_workers(workers), "instdisc-scan") as executor:
            for start in range(0, n, SLAB):  # a future is much larger than a name
                for _ in executor.map(look, range(start, min(start + SLAB, n)), chunksize=16):
                    pass
        return sizes, modified, digests, dict(sorted(problems.items()))

    def _copies(self, names, digests, problems, drop):
        """Warn of files with equal bytes, or return those to drop with the reason."""
        first, copies = {}, {}
        for name, content in zip(names, digests, strict=True):
            if name not in problems and first.setdefault(content, name) != name:
                copies[name] = f"a copy of {first[content]}"
        if copies and not drop:
            described = [f"{name} ({reason})" for name, reason in copies.items()]
            warnings.warn(
                f"{len(copies)} of {len(names)} files in {self.folder} are copies: "
                f"{listed(described)}. Training pushes an image from its copy; leave copies out "
                "by duplicates='drop', or say duplicates='keep'.",
                stacklevel=4,
            )
        return copies if drop else {}


class ImageArray(ImageSource):
    """Images that are in memory.

    Args:
        images: uint8 ``(n, height, width, 3)``.
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
        if labels is not None and np.asarray(labels).dtype.kind not in "iu":
            class_names, labels = np.unique(labels, return_inverse=True)
            class_names = class_names.tolist()
        sizes, modified = (images[0].nbytes,) * len(images), (0,) * len(images)
        digests = tuple(digest(np.ascontiguousarray(image)) for image in images)
        manifest = Manifest(tuple(names), sizes, modified, digests)
        super().__init__(manifest, images.shape[1:3], labels, class_names, pixels=images)


class ImageDataset(ImageSource):
    """A data set that can be indexed: PyTorch's, Hugging Face's, Grain's, or a list.

    An element is an image, a tuple that begins with one (and a label), or a dict with one; an
    image is what ``decode`` takes, or a PyTorch tensor ``(channels, height, width)``. A torch data
    set must return the image itself: without a random augmentation, which belongs into the model.

    Args:
        dataset: with ``len`` and integer indices. Its own order is that of the instances.
        size: see ``ImageFolder``.
        image: name of the image in a dict; None looks for ``"image"`` and ``"img"``.
        label: name of the label in a dict; None looks for ``"label"``.
        workers: see ``ImageFolder``. Give 1 for a data set that threads cannot share.

    Attributes:
        manifest: without digests, since no file is read: it holds the number of images.

    Raises:
        ValueError: a data set that cannot be indexed, is empty, or holds no images.

    Example: ``ImageDataset(datasets.load_dataset("cifar10", split="train"), size=32)``
    """

    def __init__(self, dataset, size, image=None, label=None, workers=None):
        require(
            hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"),
            f"a {type(dataset).__name__}",
            "a data set with len() and integer indices",
            "For a stream give fit (image, index) pairs, numbered before any shuffling, such as "
            "stream.enumerate().map(lambda i, image: (image, i)).batch(128) in tf.data.",
        )
        require(len(dataset) > 0, "an empty data set", "at least one image")
        self.dataset = dataset
        self._image, self._label = image, label
        n = len(dataset)
        names = tuple(f"image {i}" for i in range(n))
        manifest = Manifest(names, (0,) * n, (0,) * n, ("",) * n)
        super().__init__(manifest, _size(size), workers=workers)
        self.image(0)  # what is wrong with all images is wrong with the first
        self._read_labels()

    def _decode(self, index):
        try:
            return decode(_pixels(self._element(index)), self.size)
        except ValueError as error:
            raise ValueError(
                f"Received: element {index} of the data set, which is no image ({error}). "
                "Expected an image, a tuple that begins with one, or a dict with one."
            ) from error

    def _read_labels(self):
        """Labels where they can be had without decoding any image."""
        columns = getattr(self.dataset, "features", None)
        key = self._label or "label"
        if isinstance(columns, dict) and key in columns:  # Hugging Face
            self.labels = np.asarray(self.dataset[key][:])
            self.class_names = getattr(columns[key], "names", None)
        elif hasattr(self.dataset, "targets"):  # torchvision
            self.labels = np.asarray(self.dataset.targets)
            self.class_names = getattr(self.dataset, "classes", None)

    def _element(self, index):
        element = self.dataset[index]
        if isinstance(element, dict):
            names = [self._image] if self._image else ["image", "img"]
            found = [name for name in names if name in element]
            if not found:
                raise ValueError(f"a dict with {sorted(element)} and without {' or '.join(names)}")
            return element[found[0]]
        return element[0] if isinstance(element, (tuple, list)) else element


class _Subset(ImageSource):
    """Some images of another source."""

    def __init__(self, whole, indices):
        require(
            indices.ndim == 1 and indices.dtype.kind in "iu" and len(indices) > 0,
            f"indices of dtype {indices.dtype} and shape {indices.shape}",
            "integers, at least one",
        )
        require(
            indices.min() >= 0 and indices.max() < len(whole),
            f"indices from {indices.min()} to {indices.max()}",
            f"values in [0, {len(whole)})",
        )
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


def image_source(data, size=None, labels=None, **kwargs):
    """The ImageSource for whatever holds the images.

    Args:
        data: a folder's path, an array of images, a ``tf.data.Dataset`` of single images (which is
            read into memory, in its order), a data set that can be indexed, or an ImageSource.
        size: see ``ImageFolder``; may be left out where images are in memory.
        labels: for an array.
        **kwargs: of ImageFolder, ImageArray or ImageDataset.

    Raises:
        ValueError: what none of them can hold, or a size missing.

    Example: ``source = image_source("photos", size=64)``
    """
    if isinstance(data, ImageSource):
        return data
    if isinstance(data, np.ndarray):
        return ImageArray(data, labels, **kwargs)
    if hasattr(data, "as_numpy_iterator"):
        return _in_memory(data.as_numpy_iterator(), size, **kwargs)
    require(size is not None, "no size", "the height and width of the images, such as size=64")
    if isinstance(data, (str, os.PathLike)):
        return ImageFolder(data, size, **kwargs)
    return ImageDataset(data, size, **kwargs)


def _in_memory(elements, size, **kwargs):
    """An ImageArray of the images, and labels, of an iterator."""
    images, labels = [], []
    for element in elements:
        image = element[0] if isinstance(element, tuple) else element
        images.append(decode(_pixels(image), None if size is None else _size(size)))
        labels += [element[1]] if isinstance(element, tuple) else []
    require(bool(images), "an empty data set", "at least one image")
    shapes = {image.shape for image in images}
    require(len(shapes) == 1, f"images of {len(shapes)} sizes", "a size=, to bring them to one")
    return ImageArray(np.stack(images), labels or None, **kwargs)


def _pixels(image):
    """An image as ``decode`` takes it: tensors as arrays, channels last."""
    if type(image).__module__.split(".")[0] == "torch":
        image = np.moveaxis(np.asarray(image), 0, -1) if image.ndim == 3 else np.asarray(image)
    return image


def _image_files(folder):
    """The names of the image files below a folder, in their order."""
    require(
        folder.is_dir(),
        f"{str(folder)!r}, which is {'no folder' if folder.exists() else 'not there'}",
        "a folder of images",
    )
    names, others = [], Counter()
    for parent, folders, files in os.walk(folder):  # much faster than Path.rglob
        folders[:] = [name for name in folders if not _hidden(name)]
        place = Path(parent).relative_to(folder).as_posix()
        prefix = "" if place == "." else f"{place}/"
        for file in files:
            suffix = os.path.splitext(file)[1].lower()
            if _hidden(file):
                continue
            if suffix in SUFFIXES:
                names.append(prefix + file)
            else:
                others[suffix or "no suffix"] += 1
    held = ", ".join(f"{count} with {suffix}" for suffix, count in others.most_common(3))
    require(
        bool(names),
        f"{folder}, which holds no images: {held or 'it is empty'}",
        f"files with {', '.join(sorted(SUFFIXES))}, in it or below it",
    )
    return sorted(names, key=_natural)


def _hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _natural(name):
    """A key by which ``10.jpg`` comes after ``9.jpg``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


def _classes(names):
    """Labels and class names by the first part of each path, or None twice."""
    parts = [PurePosixPath(name).parts for name in names]
    classes = sorted({p[0] for p in parts})
    if any(len(p) == 1 for p in parts) or len(classes) == 1:
        return None, None
    numbers = {name: i for i, name in enumerate(classes)}
    return np.array([numbers[p[0]] for p in parts]), classes


def _size(size):
    height, width = (size, size) if isinstance(size, (int, np.integer)) else size
    require_count("size", height)
    require_count("size", width)
    return int(height), int(width)


def _workers(workers):
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    require_count("workers", workers)
    return workers


def _require_choice(name, value, choices):
    require(value in choices, f"{name}={value!r}", f"one of {', '.join(map(repr, choices))}")
