"""Names of files as they are stored, and as errors and pages show them."""

import re
from collections.abc import Mapping, Sequence

ENCODING = ("utf-8", "surrogateescape")  # a name need not be valid UTF-8
NAMED = 5  # how many names an error shows before it counts the others
# Control codes, ends of lines and paragraphs, turns of the direction of text, half characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(name: str) -> str:
    """The name as one line of text that every screen, page and file in UTF-8 can hold.

    A name in a folder is bytes. What is not UTF-8 in it, and control codes, become the replacement
    character.
    """
    return UNPRINTABLE.sub("\ufffd", name)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown, more = [printable(name) for name in list(names)[:NAMED]], len(names) - NAMED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def by_reason(problems: Mapping[str, str]) -> str:
    """Each reason once, after the first names that have it."""
    reasons = dict.fromkeys(problems.values())
    names = {why: [name for name, reason in problems.items() if reason == why] for why in reasons}
    return "; ".join(f"{listed(these)} ({printable(why)})" for why, these in names.items())


def with_reasons(problems: Mapping[str, str]) -> str:
    """The first names with their reasons, and how many more there are."""
    return listed([f"{name} ({why})" for name, why in problems.items()])
