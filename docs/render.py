"""Writes the numbers of stored results into the README; ``--check`` only looks whether they are."""

import json
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"


def digits_table():
    """The demonstration's table and how it was obtained, in Markdown."""
    results = json.loads((DOCS / "digits" / "results.json").read_text())
    lines = [
        "| | kNN, all labels | one label per class | k-means clustering |",
        "|---|---|---|---|",
    ]
    for name, score in results["scores"].items():
        one_label = f"{score['one_label']:.3f} ± {score['one_label_std']:.3f}"
        lines.append(f"| {name} | {score['knn']:.3f} | {one_label} | {score['clustering']:.3f} |")
    versions = results["versions"]
    lines += [
        "",
        f"Accuracies. Trained on {results['num_train']:,} digits without their labels for "
        f"{results['epochs']} epochs, {results['seconds']['training']:.0f} s on two CPU cores "
        f"({results['backend']} {versions[results['backend']]}, Keras {versions['keras']}); judged "
        f"on {results['num_held_out']} held-out ones, clustering on all. One label per class: mean "
        "and standard deviation over 50 draws of the ten labels.",
    ]
    return "\n".join(lines)


def main():
    """Render, or check."""
    text = README.read_text()
    rendered = re.sub(
        r"(<!-- digits -->\n).*?(<!-- /digits -->)",
        lambda marks: f"{marks[1]}{digits_table()}\n{marks[2]}",
        text,
        flags=re.S,
    )
    if "--check" not in sys.argv:
        README.write_text(rendered)
    elif rendered != text:
        sys.exit("README.md is not what the stored results say. Run: python docs/render.py")


if __name__ == "__main__":
    main()
