"""Writes the pages of the documentation site, from which mkdocs or zensical builds it.

    python docs/site_pages.py && mkdocs build --strict     # or: zensical build --strict

They are in ``site/source``: the README, the documents, the guides with their notebooks, and a page
of reference for each area of the package, from its docstrings.
"""

import re
import shutil
from pathlib import Path

import griffe
import guides

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "site" / "source"
TEXTS = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
AREAS = {  # title, and the modules and packages
    "models": ("Models", "model nnclr pic frozen_encoder embedding_model instance_model "
               "training_model persistent_model"),
    "rows": ("Memory bank and other rows", "memory_bank support_set class_weights embedding_table "
             "quantized_rows negative_sampler partition row_storage host_storage host_rows "
             "streamed_bank_ops"),
    "devices": ("Several devices", "devices communicator layouts ranked_model sharded_rows"),
    "objectives": ("Objectives", "objectives gradients sums normalization"),
    "encoders": ("Encoders and heads", "encoders heads pretrained network_libraries"),
    "augmentation": ("Augmentation", "augmentation"),
    "data": ("Images", "data"),
    "recipes": ("Recipes", "recipes"),
    "callbacks": ("Callbacks and health", "callbacks health fitting"),
    "checkpoints": ("Checkpoints and files", "checkpoints files"),
    "evaluation": ("Evaluation", "evaluation"),
    "image_index": ("Index", "index"),
    "page": ("Page and server", "page server"),
    "exports": ("Exports", "exports"),
    "backends": ("Backends", "bank_ops registry native_layers keras_backend two_stage_search "
                 "alias_tables host_calls types validation"),
    "testing": ("Testing", "testing"),
}  # fmt: skip


def reference():
    """The text of each page of reference, by its file; every public name is on one page, once."""
    package = griffe.load("instdisc_core", search_paths=[str(ROOT)], resolve_aliases=True)
    shown: set[str] = set()
    pages = {}
    for area, (title, modules) in AREAS.items():
        text = f"# {title}\n"
        for name in modules.split():
            module = package[name]
            names = [n for n in public_names(module) if module[n].canonical_path not in shown]
            text += f"\n## `instdisc_core.{name}`\n\n{module.docstring.value}\n"
            for each in names:
                shown.add(module[each].canonical_path)
                top = package.exports and each in package.exports
                path = f"instdisc_core.{each}" if top else f"instdisc_core.{name}.{each}"
                text += f"\n::: {path}\n"
                if has_hidden_bases(module[each]):
                    text += "    options:\n      inherited_members: true\n"
        pages[f"reference/{area}.md"] = text
    return pages


def public_names(module):
    """What users may rely on in a package, by its ``__all__``, or in a module."""
    if module.exports is not None:
        return [str(name) for name in module.exports if not module[str(name)].is_module]
    return [
        name
        for name, member in module.members.items()
        if not name.startswith("_") and not member.is_alias and member.docstring is not None
    ]


def has_hidden_bases(thing):
    """Whether a class inherits methods from one of this package that is on no page."""
    bases = thing.resolved_bases if thing.is_class else []
    return any(
        base.name not in public_names(base.package[base.path.split(".")[1]]) for base in bases
    )


def with_links(text, folder):
    """A document of a folder of the checkout; links to what is not on the site become text."""

    def link(found):
        words, target = found[1], found[2]
        path, _, anchor = target.partition("#")
        if re.match("https?:|#", target):
            return found[0]
        place = (folder / path).resolve()
        if place.suffix in (".md", ".png") and place.is_relative_to(ROOT / "docs"):
            inside = place.relative_to(ROOT / "docs").as_posix()
        elif place.parent == ROOT / "docs" / "guides":
            inside = f"guides/{place.stem}.md"
        elif place.name in TEXTS:
            inside = TEXTS[place.name]
        else:
            return words if words.startswith("`") else f"{words} (`{place.relative_to(ROOT)}`)"
        return f"[{words}]({inside}{'#' + anchor if anchor else ''})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def main():
    """Write all pages."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    pages = {new: with_links((ROOT / old).read_text(), ROOT) for old, new in TEXTS.items()}
    for path in (ROOT / "docs").glob("*.md"):
        pages[path.name] = with_links(path.read_text(), path.parent)
    for path in sorted((ROOT / "docs" / "guides").glob("*.py")):
        guide = guides.read(path)
        pages[f"guides/{path.stem}.md"] = guides.page(guide)
        pages[f"guides/{path.stem}.ipynb"] = guides.notebook(guide)
    for name, text in {**pages, **reference()}.items():
        (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        (SOURCE / name).write_text(text)
    for path in (ROOT / "docs").rglob("*.png"):
        target = SOURCE / path.relative_to(ROOT / "docs")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


if __name__ == "__main__":
    main()
