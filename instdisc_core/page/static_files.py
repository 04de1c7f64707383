"""The files that every page has: HTML, CSS and JavaScript."""

from importlib.resources import files

FILES = ("page.css", "store.js", "tiles.js", "map.js", "page.js")  # in the order of their use


def page_file(name: str) -> str:
    """The text of a file of the page.

    Example: ``from instdisc_core.page import page_file; page_file("page.css")``
    """
    return (files("instdisc_core.page") / "files" / name).read_text(encoding="utf-8")
