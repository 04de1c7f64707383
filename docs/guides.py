"""A guide is a Python file, of which pages and notebooks are made.

It begins with a docstring of ``Title:``, ``Author:``, ``Date created:``, ``Last modified:``,
``Description:`` and ``Accelerator:``, as the examples of keras.io do. Every further string that
stands by itself is text, in Markdown; the rest is code.
"""

import ast
import json
import textwrap
from pathlib import Path
from typing import NamedTuple

HEADER = ("Title", "Author", "Date created", "Last modified", "Description", "Accelerator")


class Guide(NamedTuple):
    """The parts of a guide.

    Attributes:
        name: of its file, without the suffix.
        header: its lines, by their names.
        cells: pairs of a kind, "text" or "code", and what is in it.
    """

    name: str
    header: dict[str, str]
    cells: list[tuple[str, str]]


def read(path):
    """The guide in a file.

    Raises:
        ValueError: a line of the header is missing, or there is another one.
    """
    lines = Path(path).read_text().splitlines()
    cells, end = [], 0
    for node in ast.parse("\n".join(lines)).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            cells.append(("code", "\n".join(lines[end : node.lineno - 1]).strip("\n")))
            cells.append(("text", textwrap.dedent(node.value.value).strip()))
            end = node.end_lineno
    cells.append(("code", "\n".join(lines[end:]).strip("\n")))
    (_, first), *cells = [(kind, text) for kind, text in cells if text]
    header = dict(line.split(": ", 1) for line in first.splitlines())
    if tuple(header) != HEADER:
        raise ValueError(f"{path}: the header is {', '.join(header)}, not {', '.join(HEADER)}")
    return Guide(Path(path).stem, header, cells)


def code(guide):
    """What a reader runs: all code, in order."""
    return "\n\n".join(text for kind, text in guide.cells if kind == "code") + "\n"


def page(guide):
    """The guide as a page in Markdown."""
    about = guide.header
    text = f"# {about['Title']}\n\n{about['Description']}\n\n"
    text += f"*{about['Author']}, {about['Last modified']}. Accelerator: {about['Accelerator']}. "
    text += f"[Notebook]({guide.name}.ipynb)*\n"
    for kind, cell in guide.cells:
        text += f"\n{cell}\n" if kind == "text" else f"\n```python\n{cell}\n```\n"
    return text


def notebook(guide):
    """The guide as a notebook, nbformat 4.5."""
    about = guide.header
    cells = [("text", f"# {about['Title']}\n\n{about['Description']}"), *guide.cells]
    kinds = {"text": {"cell_type": "markdown"}, "code": {"cell_type": "code", "outputs": []}}
    written = [
        {**kinds[kind], "id": f"cell-{i}", "metadata": {}, "source": text}
        | ({"execution_count": None} if kind == "code" else {})
        for i, (kind, text) in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": written, "metadata": {"kernelspec": kernel}}
    return json.dumps({**whole, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"
