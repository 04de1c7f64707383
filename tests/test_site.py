"""The site that docs/site_pages.py and MkDocs have built: everything public is in its reference."""

import json
import re
import sys
import zlib
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="the environment docs has what builds the site")

sys.path.append(str(Path(__file__).parents[1] / "docs"))

import griffe
import guides
import site_pages

ROOT = Path(__file__).parents[1]
HTML = ROOT / "site" / "html"
PACKAGE = griffe.load("instdisc_core", search_paths=[str(ROOT)])
HIDDEN = {"command_line"}  # its pages are `instdisc --help`


def documented():
    """The names in the site's inventory, which other projects' documentation links by."""
    data = (HTML / "objects.inv").read_bytes()
    lines = zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ")[0] for line in lines}


def test_every_module_is_in_one_area():
    listed = [name for _, names in site_pages.AREAS.values() for name in names.split()]
    assert sorted(listed) == sorted(set(PACKAGE.modules) - HIDDEN)


def test_every_public_name_has_an_entry():
    found = documented()
    assert len(found) > 150
    for area in [PACKAGE, *(PACKAGE[name] for name in sorted(set(PACKAGE.modules) - HIDDEN))]:
        for name in site_pages.public_names(area):
            paths = {f"{area.path}.{name}", area[name].canonical_path}
            assert paths <= found, f"{area.path}.{name}"


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"([\w/]+\.md)", config[config.index("\nnav:") :])
    pages = [path.relative_to(site_pages.SOURCE) for path in site_pages.SOURCE.rglob("*.md")]
    assert sorted(listed) == sorted(path.as_posix() for path in pages)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "guides").glob("*.py")), ids=str)
def test_every_guide_has_a_notebook(path):
    nbformat = pytest.importorskip("nbformat")
    text = (HTML / "guides" / f"{path.stem}.ipynb").read_text()
    nbformat.validate(json.loads(text))
    cells = nbformat.reads(text, 4).cells
    code = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code") + "\n"
    assert code == guides.code(guides.read(path))
