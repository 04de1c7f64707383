"""Images in a folder: what is broken or a copy is left out, and what has changed is named."""

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from instdisc_core.data.decoding import decode
from instdisc_core.data.listing import classes, image_files, with_reasons
from instdisc_core.data.manifest import Manifest, digest, listed, printable
from instdisc_core.data.reading import contents
from instdisc_core.data.scanning import scan
from instdisc_core.data.sources import ImageSource, fits, threads
from instdisc_core.validation import require, require_count, require_size


class ImageFolder(ImageSource):
    """The images in a folder and its subfolders, in the order of their names.

    If every image is in a subfolder, and there are several, the first part of a path is an
    image's class; else the folder is flat and there are no labels. Files are read if they are
    regular, not larger than ``max_bytes``, and of a format that ``decode`` lists; whatever else has
    the name of an image counts as broken.

    Args:
        folder: its path.
        size: height and width in pixels to which images are brought, one integer or a pair: the
            largest central part of that shape, resized.
        corrupt: what to do about broken files, and about subfolders that cannot be listed:
            ``"raise"`` raises an error that names them; ``"skip"`` leaves them out and lists them
            in ``manifest.skipped``.
        duplicates: about files with equal bytes: ``"warn"``, ``"drop"`` (all but the first of
            each, listed in ``manifest.skipped``) or ``"keep"``. The objective would push an image
            from its copy.
        manifest: path of a CSV file. If it is there, the folder is checked against it, its order
            holds, and files that are new are left out with a warning; otherwise it is written.
        cache: keep the decoded images in memory; ``"auto"`` where that takes at most 2 GiB.
            Without a cache broken files are found at the start only with ``corrupt="skip"``; else
            when their turn comes. A file whose content is then not what it was at the start is an
            error; one that changed without a new size or time is not noticed.
        workers: threads that decode; None is one for each core.
        class_names: the classes in the order of their labels, such as another folder's
            ``class_names``; None is the sorted names of the subfolders.
        labels: ``"inferred"`` takes the classes from the subfolders; None says that there are no
            classes, as for folders by year.
        follow_links: read the folders behind links as well, each folder once, so that links in a
            circle end; with False such a link counts as a subfolder that cannot be listed. Links
            to files are always read.
        max_bytes: the largest size of a file in bytes; a larger one counts as broken.
        verbose: print how many images were found and skipped, and show a progress bar where there
            are at least 1,000 files to read.

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
        folder: str | os.PathLike,
        size: int | tuple[int, int],
        corrupt: Literal["raise", "skip"] = "raise",
        duplicates: Literal["warn", "drop", "keep"] = "warn",
        manifest: str | os.PathLike | None = None,
        cache: bool | Literal["auto"] = "auto",
        workers: int | None = None,
        class_names: Sequence[str] | None = None,
        labels: Literal["inferred"] | None = "inferred",
        follow_links: bool = False,
        max_bytes: int = 2**28,
        verbose: bool = True,
    ) -> None:
        _require_choice("corrupt", corrupt, ("raise", "skip"))
        _require_choice("duplicates", duplicates, ("warn", "drop", "keep"))
        _require_choice("cache", cache, ("auto", True, False))
        _require_choice("labels", labels, ("inferred", None))
        require(
            labels is not None or class_names is None,
            "class_names for images without labels",
            "labels='inferred' where there are classes",
        )
        require_count("max_bytes", max_bytes)
        self.folder, self.max_bytes, shape = Path(folder), max_bytes, require_size(size)
        listing = image_files(self.folder, follow_links)
        known = _known(Path(manifest)) if manifest else None
        names = listing.names if known is None else self._names_of(known, listing)
        cached = fits(len(names), shape) if cache == "auto" else cache
        pixels = np.empty((len(names), *shape, 3), "uint8") if cached else None
        unseen = corrupt == "skip" and known is None
        found, problems = scan(
            self.folder,
            names,
            shape if cached or unseen else None,
            pixels,
            known,
            max_bytes,
            threads(workers),
            verbose,
        )
        if known is None:
            problems = {**listing.problems, **problems}
            found, pixels = self._chosen(found, pixels, problems, corrupt, duplicates)
            if manifest:
                found.save(manifest)
        else:
            self._reject(problems, "Restore them; or delete the manifest, and train a new model.")
            known.check(found, self._place)
        self._modified = found.modified  # in the manifest they may be those of a copied folder
        kept = found if known is None else known
        numbers, class_names = classes(kept.names, class_names) if labels else (None, None)
        super().__init__(kept, shape, numbers, class_names, workers, pixels)
        if verbose:
            self._print_summary(manifest)

    def _decode(self, index):
        path = self.folder / self.names[index]
        try:
            data, status = contents(path, self.max_bytes)
            seen = self.manifest.sizes[index], self._modified[index]
            is_same = (status.st_size, status.st_mtime_ns) == seen
            if not is_same and digest(data) != self.manifest.digests[index]:
                raise ValueError("its content has changed")
            return decode(data, self.size)
        except ValueError as error:
            raise ValueError(
                f"Received: {printable(str(path))}, instance {index}, which cannot be read "
                f"({error}). Expected the image that was there when the folder was listed. Restore "
                "it; or list the folder again with corrupt='skip', and train a new model."
            ) from error

    def _names_of(self, known, listing):
        """The names in the manifest's order, without files that came later."""
        there = {*listing.names, *listing.problems}
        gone = [name for name in known.names if name not in there]
        unlisted = f"; not listed: {with_reasons(listing.problems)}" if listing.problems else ""
        require(
            not gone,
            f"{self._place}, in which {len(gone)} of the manifest's {len(known)} files are "
            f"missing: {listed(gone)}{unlisted}",
            "the files that the manifest lists",
            "Restore them; or delete the manifest, and train a new model on what is there now.",
        )
        new = there - set(known.names) - set(known.skipped)
        if new:
            warnings.warn(
                f"{len(new)} files or folders in {self._place} are not in its manifest and are "
                f"left out: {listed(sorted(new))}. To train on them, delete the manifest and train "
                "a new model.",
                stacklevel=3,
            )
        return list(known.names)

    def _reject(self, problems, remedy):
        """Raise if there are files or folders with problems."""
        require(
            not problems,
            f"{self._place}, in which {len(problems)} files or folders cannot be read: "
            + with_reasons(problems),
            "images",
            remedy,
        )

    def _chosen(self, found, pixels, problems, corrupt, duplicates):
        """Manifest and pixels without the files that are broken or, if so wished, copies."""
        if corrupt == "raise":
            self._reject(problems, "Repair or remove them, or leave them out by corrupt='skip'.")
        first: dict[str, str] = {}
        copies = {
            name: f"a copy of {printable(first[content])}"
            for name, content in zip(found.names, found.digests, strict=True)
            if name not in problems and first.setdefault(content, name) != name
        }
        if copies and duplicates == "warn":
            warnings.warn(
                f"{len(copies)} of {len(found)} files in {self._place} are copies: "
                f"{with_reasons(copies)}. Training pushes an image from its copy; leave copies "
                "out by duplicates='drop', or say duplicates='keep'.",
                stacklevel=3,
            )
        skipped = {**problems, **(copies if duplicates == "drop" else {})}
        keep = [i for i, name in enumerate(found.names) if name not in skipped]
        require(
            bool(keep),
            f"{self._place}, all of whose {len(found)} image files are broken: "
            + with_reasons(problems),
            "at least one image",
        )
        if not skipped:
            return found, pixels
        return found.subset(keep, skipped), None if pixels is None else _moved(pixels, keep)

    @property
    def _place(self):
        return printable(str(self.folder))

    def _print_summary(self, manifest):
        """One line on what was found and what was left out."""
        skipped = len(self.manifest.skipped)
        kinds = f" in {len(self.class_names)} classes" if self.class_names else ""
        places = ".manifest.skipped" + (f" and {printable(str(manifest))}" if manifest else "")
        line = f"Found {len(self)} images{kinds} in {self._place}; skipped {skipped}"
        line += f", listed in {places}." if skipped else "."
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding))


def _known(path):
    """The manifest in a file, or None where it can be written; before any image is read."""
    if path.exists():
        return Manifest.load(path)
    parent = path.resolve().parent
    require(
        parent.is_dir(),
        f"manifest={printable(str(path))!r}, in a folder that is not there",
        "a path in a folder that exists",
        f"Create {printable(str(parent))} first.",
    )
    return None


def _moved(pixels, keep):
    """The images of these indices, which rise, moved to the front of the array: no second one."""
    for place, i in enumerate(keep):
        pixels[place] = pixels[i]
    return pixels[: len(keep)]


def _require_choice(name, value, choices):
    require(value in choices, f"{name}={value!r}", f"one of {', '.join(map(repr, choices))}")
