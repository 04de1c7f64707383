"""A page as a folder of files, or as one file."""

import base64
import dataclasses
import hashlib
import html
import os
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from instdisc_core.data import ImageSource
from instdisc_core.data.names import ENCODING, printable
from instdisc_core.files import replacing
from instdisc_core.page.contents import Contents
from instdisc_core.page.static_files import FILES, page_file
from instdisc_core.page.thumbnails import SUFFIX, Thumbnails
from instdisc_core.validation import require

PARTS = "page"  # the folder next to index.html
STYLE = f'<link rel="stylesheet" href="{PARTS}/page.css">\n'
SELF = "'self' file:"  # in a file: page 'self' is nothing in some browsers


def save_page(
    folder: str | os.PathLike,
    contents: Contents,
    images: ImageSource,
    originals: str | os.PathLike | None = None,
    verbose: bool = False,
) -> int:
    """Write a page as ``index.html`` and the folder ``page`` next to it.

    Opened from the disk or from any web server, it needs nothing else. Thumbnails that are there
    are kept.

    Args:
        folder: its path; it is created if it does not exist.
        contents: what to show.
        images: the ImageSource of the images, in the order of ``contents.names``.
        originals: the folder that the names are in, for links to the files; None for no links.
        verbose: show a progress bar for 1,000 or more thumbnails.

    Returns:
        How many thumbnails were made.

    Raises:
        ValueError: the folder holds an ``index.html`` of something else.
    """
    folder = Path(folder)
    parts = folder / PARTS
    require_own_page(folder)
    parts.mkdir(parents=True, exist_ok=True)
    thumbnails = Thumbnails(parts / "thumbnails", images.manifest)
    made = thumbnails.make_all(images, verbose)
    files = {"thumbnails": f"{PARTS}/thumbnails/", "keys": thumbnails.keys, "suffix": SUFFIX}
    files |= {} if originals is None else _links(folder, Path(originals), contents)
    for name in FILES:
        _write(parts / name, page_file(name))
    _write(parts / "data.js", dataclasses.replace(contents, files=files).script())
    scripts = ["data.js", *(name for name in FILES if name.endswith(".js"))]
    head = STYLE + "\n".join(f'<script src="{PARTS}/{name}" defer></script>' for name in scripts)
    policy = f"default-src 'none'; script-src {SELF}; style-src {SELF}; img-src {SELF} data:"
    _write(folder / "index.html", html_page(contents.title, head, policy))
    return made


def one_file(contents: Contents, thumbnails: Iterable[bytes]) -> str:
    """The text of a page that is one file, which holds its pictures.

    Args:
        contents: what to show.
        thumbnails: of each image the bytes of a WebP file.
    """
    keys = [base64.b64encode(data).decode() for data in thumbnails]
    files = {"thumbnails": "data:image/webp;base64,", "keys": keys, "suffix": ""}
    script = dataclasses.replace(contents, files=files).script()
    script += "".join(page_file(name) for name in FILES if name.endswith(".js"))
    script = f'document.addEventListener("DOMContentLoaded", () => {{\n{script}}});\n'
    style = page_file("page.css")
    head = f"<style>{style}</style>\n<script>{script}</script>"
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}"
    return html_page(contents.title, head, f"{policy}; img-src data:")


def html_page(title: str, head: str, policy: str = "", body: str = "") -> str:
    """The HTML of a page, without its data.

    Args:
        title: of the page.
        head: HTML that loads styles and scripts.
        policy: the Content-Security-Policy; ``""`` if the server sends it as a header.
        body: HTML to put next to the search box.
    """
    always = "; base-uri 'none'; form-action 'none'"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}{always}">'
    return string.Template(page_file("index.html")).substitute(
        title=html.escape(printable(title)), policy=meta if policy else "", head=head, body=body
    )


def require_own_page(folder: Path) -> None:
    """Raise for a folder with an ``index.html`` that ``save_page`` did not write."""
    path = folder / "index.html"
    require(
        not path.exists() or STYLE in path.read_text("utf-8", "replace"),
        f"{printable(str(path))}, which is not of such a page",
        "a folder without an index.html, or with one of an earlier page",
        "It would be replaced: choose another folder.",
    )


def _links(folder: Path, originals: Path, contents: Contents) -> dict[str, Any]:
    """Where the originals are, and the links of names that are shown otherwise than they are."""
    try:
        prefix = quote(os.fsencode(os.path.relpath(originals, folder).replace(os.sep, "/"))) + "/"
    except ValueError:  # on Windows, on another drive
        prefix = originals.resolve().as_uri() + "/"
    odd = {
        str(index): quote(name.encode(*ENCODING))
        for index, name in enumerate(contents.names)
        if name != printable(name)
    }
    return {"originals": prefix, "links": odd}


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy: this text alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
