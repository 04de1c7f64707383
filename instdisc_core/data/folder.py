"""Images in a folder as a source."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from instdisc_core.data.decoding import decode, thumbnail
from instdisc_core.data.labels import Labels, by_folder
from instdisc_core.data.listing import image_files
from instdisc_core.data.names import by_reason, printable
from instdisc_core.data.reading import contents, digest
from instdisc_core.data.scanning import scan
from instdisc_core.data.selection import (
    names_of_manifest,
    require_readable,
    saved_manifest,
    without_problems,
)
from instdisc_core.data.source import ImageSource, fits, threads
from instdisc_core.validation import (
    OtherImages,
    require,
    require_choice,
    require_count,
    require_size,
)


class ImageFolder(ImageSource):
    """The images in a folder and its subfolders, in the order of their names.

    If there are several subfolders and every image is in one, the first part of its path is its
    class. Otherwise there are no labels. A file is read if it is a regular file, not larger than
    ``max_bytes``, and of a format that ``decode`` lists. Any other file with the name of an image
    counts as broken.

    Args:
        folder: its path.
        size: height and width of the images in pixels, one integer or a pair. The largest central
            part of that shape is resized to it.
        corrupt: what to do with broken files, and with subfolders that cannot be listed:
            ``"raise"`` raises an error that names them; ``"skip"`` leaves them out and lists them
            in ``manifest.skipped``.
        duplicates: what to do with files of equal bytes: ``"warn"``, ``"drop"`` (keep the first,
            and list the others in ``manifest.skipped``) or ``"keep"``. The objective pushes an
            image away from its copy.
        manifest: path of a CSV file. If it exists, the folder is checked against it, its order is
            taken, and new files are left out with a warning. Otherwise it is written.
        cache: keep the decoded images in memory; ``"auto"`` if that takes at most 2 GiB. Without a
            cache, broken files are found at the start only with ``corrupt="skip"``; otherwise when
            they are decoded. A file whose content has changed since the start is then an error. A
            change that keeps both size and time of a file is not noticed.
        workers: threads that decode; None is one for each core.
        class_names: the classes in the order of their labels, such as another folder's
            ``class_names``; None is the sorted names of the subfolders.
        labels: ``"inferred"`` takes the classes from the subfolders; None means that there are no
            classes, for example if the subfolders are years.
        follow_links: read the folders behind links as well, each folder once, so that links in a
            circle do no harm. If False, such a link counts as a subfolder that cannot be listed.
            Links to files are always read.
        max_bytes: the largest size of a file in bytes; a larger file counts as broken.
        verbose: print how many images were found and skipped, and show a progress bar for 1,000 or
            more files.

    Raises:
        ValueError: the folder does not exist or holds no images, a file is broken, or the folder
            is not that of the manifest. The message names the files.

    Example:
    ```python
    photos = ImageFolder("photos", size=32, corrupt="skip")
    model.fit(photos.batches(10, seed=0), epochs=1)
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
        require_choice("corrupt", corrupt, ("raise", "skip"))
        require_choice("duplicates", duplicates, ("warn", "drop", "keep"))
        require_choice("cache", cache, ("auto", True, False))
        require_choice("labels", labels, ("inferred", None))
        require(
            labels is not None or class_names is None,
            "class_names for images without labels",
            "labels='inferred' if there are classes",
        )
        require_count("max_bytes", max_bytes)
        self.folder, self.max_bytes, shape = Path(folder), max_bytes, require_size(size)
        listing = image_files(self.folder, follow_links)
        place = printable(str(self.folder))
        known = saved_manifest(Path(manifest)) if manifest else None
        names = listing.names if known is None else names_of_manifest(known, listing, place)
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
            if corrupt == "raise":
                require_readable(problems, place)
            found, pixels = without_problems(found, pixels, problems, duplicates, place)
            if manifest:
                found.save(manifest)
        else:
            remedy = "Restore them; or delete the manifest, and train a new model."
            require_readable(problems, place, remedy, OtherImages)
            known.check(found, place)
        self._modified = found.modified  # in the manifest they may be those of a copied folder
        kept = found if known is None else known
        numbers, found_names = by_folder(kept.names, class_names) if labels else Labels(None, None)
        super().__init__(kept, shape, numbers, found_names, workers, pixels)
        if verbose:
            self._print_summary(place, manifest, listing.unread)

    def thumbnail(self, index: int, side: int = 160) -> np.ndarray:
        """See ``ImageSource``."""
        return self._read(index, lambda data: thumbnail(data, side))

    def _decode(self, index: int) -> np.ndarray:
        return self._read(index, lambda data: decode(data, self.size))

    def _read(self, index: int, make: Callable[[bytes], np.ndarray]) -> np.ndarray:
        """What ``make`` returns for the bytes of a file."""
        path = self.folder / self.names[index]
        try:
            data, status = contents(path, self.max_bytes)
            seen = self.manifest.sizes[index], self._modified[index]
            is_same = (status.st_size, status.st_mtime_ns) == seen
            if not is_same and digest(data) != self.manifest.digests[index]:
                raise ValueError("its content has changed")
            return make(data)
        except ValueError as error:
            raise ValueError(
                f"Received: {printable(str(path))}, instance {index}, which cannot be read "
                f"({error}). Expected the image that was there when the folder was listed. Restore "
                "it; or list the folder again with corrupt='skip', and train a new model."
            ) from error

    def _print_summary(
        self, place: str, manifest: str | os.PathLike | None, unread: Mapping[str, int]
    ) -> None:
        """One line on what was found, what was left out, and what is of no format that is read."""
        skipped = self.manifest.skipped
        kinds = f" in {len(self.class_names)} classes" if self.class_names else ""
        line = f"Found {len(self)} images{kinds} in {place}; skipped {len(skipped)}"
        line += f": {by_reason(skipped)}. All are in " if skipped else "."
        if skipped:
            line += f"{printable(str(manifest))}." if manifest else ".manifest.skipped."
        if unread:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in unread.items())
            line += f" Formats that are not read: {counts} files. Convert them to JPEG first."
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(line.encode(encoding, "backslashreplace").decode(encoding))
