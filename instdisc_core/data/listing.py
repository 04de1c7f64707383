"""Which files in a folder are images by their names, and in which order."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instdisc_core.data.decoding import SUFFIXES
from instdisc_core.data.names import printable, with_reasons
from instdisc_core.data.reading import reason
from instdisc_core.validation import require

# Formats of phones and cameras that Pillow does not read.
UNREAD = {".heic", ".heif", ".jxl", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}


class Listing(NamedTuple):
    """What is in a folder; names are paths from there with ``/`` between the parts.

    Attributes:
        names: of the image files, in their order: ``9.jpg`` before ``10.jpg``.
        problems: dict from the name of each folder that was not listed to the reason.
        unread: dict from the suffix of photos in formats that are not read to their number.
    """

    names: list[str]
    problems: dict[str, str]
    unread: dict[str, int]


def image_files(folder: Path, follow_links: bool) -> Listing:
    """List the image files in a folder and its subfolders, without hidden ones.

    Args:
        folder: its path.
        follow_links: list the folders behind links as well. No folder is listed twice, so links
            in a circle do no harm. A file in the folder itself is listed by its own path there.

    Raises:
        ValueError: the folder does not exist, is not a folder, or has no images.
    """
    place = printable(str(folder))
    require(
        folder.is_dir(),
        f"{place!r}, which {'is not a folder' if folder.exists() else 'does not exist'}",
        "a folder of images",
    )
    names: list[str] = []
    problems: dict[str, str] = {}
    others = Counter[str]()
    for name in _walk(folder, follow_links, problems):
        suffix = _suffix(name)
        if suffix in SUFFIXES:
            names.append(name)
        else:
            others[printable(suffix) or "no suffix"] += 1
    held = [f"{count} with {suffix}" for suffix, count in others.most_common(3)]
    held += [with_reasons(problems)] if problems else []
    require(
        bool(names),
        f"{place}, which holds no images: {', '.join(held) or 'it is empty'}",
        f"files with {', '.join(sorted(SUFFIXES))}, in it or below it",
    )
    unread = {suffix: count for suffix, count in others.most_common() if suffix in UNREAD}
    return Listing(sorted(names, key=_natural), problems, unread)


def _walk(folder: Path, follow_links: bool, problems: dict[str, str]) -> Iterator[str]:
    """Yield the name of each file that is not hidden; add to ``problems`` what cannot be listed."""
    folders, links, seen = deque([""]), deque[str](), set[str]()
    while folders or links:
        place = (folders or links).popleft()  # links last: a folder is listed by its own path
        if follow_links:
            real = os.path.realpath(folder / place)
            if real in seen:
                continue
            seen.add(real)
        try:
            with os.scandir(folder / place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            problems[place.rstrip("/") or "."] = reason(error)
            continue
        for entry in found:
            name = place + entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                is_folder, is_link = entry.is_dir(), _is_link(entry)
                if is_link:
                    os.stat(folder / name)  # raises if the target does not exist
            except OSError as error:
                if _suffix(name) in {"", *SUFFIXES}:  # it may have been a folder, or an image
                    problems[name] = reason(error)
                continue
            if is_folder and is_link and not follow_links:
                problems[name] = "a link to a folder; follow_links=True reads it"
            elif is_folder:
                (links if is_link else folders).append(f"{name}/")
            else:
                yield name


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link, or on Windows a junction."""
    return entry.is_symlink() or getattr(entry, "is_junction", bool)()


def _natural(name: str) -> tuple[list[int | str], str]:
    """A key that sorts ``10.jpg`` after ``9.jpg``."""
    parts = re.split(r"([0-9]+)", name)  # every second part is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
