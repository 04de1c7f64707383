"""Images in a folder: which files they are, which are broken or copies, and what has changed."""

import os
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from instdisc_core.data.decoding import SUFFIXES, read
from instdisc_core.data.manifest import Manifest, digest, listed
from instdisc_core.data.sources import ImageSource, fits, threads
from instdisc_core.validation import require, require_size

SLAB = 4096  # files that are submitted to the threads at a time


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
        class_names: the classes in the order of their labels, such as another folder's
            ``class_names``; None is the sorted names of the subfolders.

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
        class_names=None,
    ):
        _require_choice("corrupt", corrupt, ("refuse", "skip"))
        _require_choice("duplicates", duplicates, ("warn", "drop", "keep"))
        _require_choice("cache", cache, ("auto", True, False))
        self.folder, size = Path(folder), require_size(size)
        names = _image_files(self.folder)
        known = Manifest.load(manifest) if manifest and Path(manifest).exists() else None
        if known is not None:
            names = self._names_of(known, names)
        cached = fits(len(names), size) if cache == "auto" else cache
        pixels = np.empty((len(names), *size, 3), "uint8") if cached else None
        unseen = corrupt == "skip" and known is None
        decoding = size if cached or unseen else None
        found, problems = self._scan(names, decoding, pixels, known, threads(workers))
        if known is not None or corrupt == "refuse":
            self._refuse(problems, names)
        if known is not None:
            known.check(found, str(self.folder))
            found = known
        else:
            found, pixels = self._kept(found, pixels, problems, duplicates)
            if manifest:
                found.save(manifest)
        labels, class_names = _classes(found.names, class_names)
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
        """Read all files once: their Manifest, and what was wrong with which.

        Args:
            names: of the files.
            decoding: the size to decode to, or None to look at no image.
            pixels: the array to fill with what was decoded, or None.
            known: the manifest, or None. A file of the size and time that it lists is the same
                file, and is not read again if nothing is decoded.
        """
        n = len(names)
        sizes, modified, digests = [0] * n, [0] * n, [""] * n
        problems: dict[str, str] = {}

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

        with ThreadPoolExecutor(workers, "instdisc-scan") as executor:
            for start in range(0, n, SLAB):  # a future is much larger than a name
                for _ in executor.map(look, range(start, min(start + SLAB, n)), chunksize=16):
                    pass
        found = Manifest(tuple(names), tuple(sizes), tuple(modified), tuple(digests))
        return found, {name: problems[name] for name in names if name in problems}

    def _refuse(self, problems, names):
        """Raise if there are files with problems."""
        require(
            not problems,
            f"{len(problems)} of {len(names)} files in {self.folder} that cannot be read: "
            + _with_reasons(problems),
            "images",
            "Mend or remove them, or leave them out by corrupt='skip'.",
        )

    def _kept(self, found, pixels, problems, duplicates):
        """Manifest and pixels without the files that are broken or, if so wished, copies."""
        first: dict[str, str] = {}
        copies = {
            name: f"a copy of {first[content]}"
            for name, content in zip(found.names, found.digests, strict=True)
            if name not in problems and first.setdefault(content, name) != name
        }
        if copies and duplicates == "warn":
            warnings.warn(
                f"{len(copies)} of {len(found)} files in {self.folder} are copies: "
                f"{_with_reasons(copies)}. Training pushes an image from its copy; leave copies "
                "out by duplicates='drop', or say duplicates='keep'.",
                stacklevel=3,
            )
        skipped = {**problems, **(copies if duplicates == "drop" else {})}
        keep = [i for i, name in enumerate(found.names) if name not in skipped]
        require(
            bool(keep),
            f"{self.folder}, all of whose {len(found)} image files are broken: "
            + _with_reasons(problems),
            "at least one image",
        )
        if not skipped:
            return found, pixels
        return found.subset(keep, skipped), None if pixels is None else pixels[keep]


def _with_reasons(problems):
    return listed([f"{name} ({reason})" for name, reason in problems.items()])


def _image_files(folder):
    """The names of the image files below a folder, in their order."""
    require(
        folder.is_dir(),
        f"{str(folder)!r}, which is {'no folder' if folder.exists() else 'not there'}",
        "a folder of images",
    )
    names, others = [], Counter[str]()
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
    parts = re.split(r"([0-9]+)", name)  # every second part is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _classes(names, wanted):
    """Labels and class names by the first part of each path, or None twice."""
    parts = [PurePosixPath(name).parts for name in names]
    found = sorted({p[0] for p in parts})
    if wanted is None and (any(len(p) == 1 for p in parts) or len(found) == 1):
        return None, None
    classes = found if wanted is None else list(wanted)
    unknown = [name for name in found if name not in classes]
    require(not unknown, f"classes {listed(unknown)}", f"some of {', '.join(classes)}")
    numbers = {name: i for i, name in enumerate(classes)}
    return np.array([numbers[p[0]] for p in parts]), classes


def _require_choice(name, value, choices):
    require(value in choices, f"{name}={value!r}", f"one of {', '.join(map(repr, choices))}")
