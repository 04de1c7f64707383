"""Which files of a folder are kept: those of its manifest, or all but broken ones and copies."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from instdisc_core.data.listing import Listing
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.names import listed, printable, with_reasons
from instdisc_core.validation import OtherImages, require


def saved_manifest(path: Path) -> Manifest | None:
    """The manifest in a file, or None if there is no file and one can be written.

    Raises:
        ValueError: the file is not a manifest, or its folder does not exist.
    """
    if path.exists():
        return Manifest.load(path)
    parent = path.resolve().parent
    require(
        parent.is_dir(),
        f"manifest={printable(str(path))!r}, in a folder that does not exist",
        "a path in a folder that exists",
        f"Create {printable(str(parent))} first.",
    )
    return None


def names_of_manifest(manifest: Manifest, listing: Listing, place: str) -> list[str]:
    """The names in the order of the manifest; warn of files that it does not list.

    Args:
        manifest: of the folder.
        listing: what is in the folder now.
        place: the folder, for the messages.

    Raises:
        OtherImages: a ValueError; files of the manifest are missing.
    """
    there = {*listing.names, *listing.problems}
    gone = [name for name in manifest.names if name not in there]
    unlisted = f"; not listed: {with_reasons(listing.problems)}" if listing.problems else ""
    require(
        not gone,
        f"{place}, in which {len(gone)} of the manifest's {len(manifest)} files are "
        f"missing: {listed(gone)}{unlisted}",
        "the files that the manifest lists",
        "Restore them; or delete the manifest, and train a new model on what is there now.",
        OtherImages,
    )
    new = there - set(manifest.names) - set(manifest.skipped)
    if new:
        warnings.warn(
            f"{len(new)} files or folders in {place} are not in its manifest and are "
            f"left out: {listed(sorted(new))}. To include them, train a new model with a new "
            "manifest, or bring an index up to date.",
            stacklevel=3,
        )
    return list(manifest.names)


def require_readable(
    problems: Mapping[str, str],
    place: str,
    remedy: str = "Repair or remove them, or leave them out by corrupt='skip'.",
    error: type[ValueError] = ValueError,
) -> None:
    """Raise if there are files or folders that cannot be read."""
    require(
        not problems,
        f"{place}, in which {len(problems)} files or folders cannot be read: "
        + with_reasons(problems),
        "images",
        remedy,
        error,
    )


def without_problems(
    found: Manifest,
    pixels: np.ndarray | None,
    problems: Mapping[str, str],
    duplicates: Literal["warn", "drop", "keep"],
    place: str,
) -> tuple[Manifest, np.ndarray | None]:
    """Manifest and pixels without the files that are broken or, with ``"drop"``, copies.

    Args:
        found: the manifest of all files.
        pixels: of all files, ``(n, height, width, 3)``; their place in memory is used again.
        problems: the reasons of files that cannot be read, by name.
        duplicates: what to do with copies.
        place: the folder, for the messages.

    Raises:
        ValueError: no file is left.
    """
    first: dict[str, str] = {}
    copies = {
        name: f"a copy of {printable(first[content])}"
        for name, content in zip(found.names, found.digests, strict=True)
        if name not in problems and first.setdefault(content, name) != name
    }
    if copies and duplicates == "warn":
        warnings.warn(
            f"{len(copies)} of {len(found)} files in {place} are copies: {with_reasons(copies)}. "
            "Training pushes an image away from its copy. Leave copies out by duplicates='drop', "
            "or keep them by duplicates='keep'.",
            stacklevel=3,
        )
    skipped = {**problems, **(copies if duplicates == "drop" else {})}
    keep = [i for i, name in enumerate(found.names) if name not in skipped]
    require(
        bool(keep),
        f"{place}, all of whose {len(found)} image files are broken: {with_reasons(problems)}",
        "at least one image",
    )
    if not skipped:
        return found, pixels
    return found.subset(keep, skipped), None if pixels is None else _moved(pixels, keep)


def _moved(pixels: np.ndarray, keep: list[int]) -> np.ndarray:
    """The images of these indices, which rise, moved to the front: this needs no second array."""
    for place, i in enumerate(keep):
        pixels[place] = pixels[i]
    return pixels[: len(keep)]
