"""Which files in a folder are images by their names, in which order, and of which classes."""

import os
import re
from collections import Counter, deque
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from instdisc_core.data.decoding import SUFFIXES
from instdisc_core.data.manifest import listed, printable
from instdisc_core.data.reading import reason
from instdisc_core.validation import require


class Listing(NamedTuple):
    """What there is below a folder; names are paths from there with ``/`` between the parts.

    Attributes:
        names: of the image files, in their order: ``9.jpg`` before ``10.jpg``.
        problems: dict from the name of each folder that was not listed to the reason.
    """

    names: list[str]
    problems: dict[str, str]


def image_files(folder: Path, follow_links: bool) -> Listing:
    """List the image files in a folder and its subfolders, but for hidden ones.

    Args:
        folder: its path.
        follow_links: list the folders behind links as well. No folder is listed twice, so that
            links in a circle end; files of the folder itself are listed under its own name.

    Raises:
        ValueError: the folder is not there, no folder, or has no images.
    """
    place = printable(str(folder))
    require(
        folder.is_dir(),
        f"{place!r}, which is {'no folder' if folder.exists() else 'not there'}",
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
    return Listing(sorted(names, key=_natural), problems)


def classes(names, wanted=None):
    """Labels and class names by the first part of each path, or None twice.

    Args:
        names: of the images.
        wanted: the class names in the order of their labels; None is all there are, sorted.
    """
    parts = [PurePosixPath(name).parts for name in names]
    found = sorted({p[0] for p in parts})
    if wanted is None and (any(len(p) == 1 for p in parts) or len(found) == 1):
        return None, None
    classes = found if wanted is None else list(wanted)
    unknown = [name for name in found if name not in classes]
    expected = f"some of {', '.join(map(printable, classes))}"
    require(not unknown, f"classes {listed(unknown)}", expected)
    numbers = {name: i for i, name in enumerate(classes)}
    return np.array([numbers[p[0]] for p in parts]), classes


def with_reasons(problems: dict[str, str]) -> str:
    """The first names with their reasons, and how many more there are."""
    return listed([f"{name} ({why})" for name, why in problems.items()])


def _walk(folder, follow_links, problems):
    """Yield the name of each file that is not hidden; add to ``problems`` what cannot be listed."""
    folders, links, seen = deque([""]), deque[str](), set()
    while folders or links:
        place = (folders or links).popleft()  # links last: a folder's own name comes first
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
                    os.stat(folder / name)  # raises where the link leads nowhere
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


def _suffix(name):
    return os.path.splitext(name)[1].lower()


def _is_link(entry):
    """Whether an entry of a folder stands for another place, on Windows also by a junction."""
    return entry.is_symlink() or getattr(entry, "is_junction", bool)()


def _natural(name):
    """A key by which ``10.jpg`` comes after ``9.jpg``."""
    parts = re.split(r"([0-9]+)", name)  # every second part is a number
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
