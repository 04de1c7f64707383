"""The stored results of ``python -m benchmarks.other_tools``, in Markdown."""

from performance_tables import markdown, stored

STEPS = {  # what a user writes, in lines, from a folder to pairs
    "cleanvision": ("make an Imagelab, find issues, read its sets", 3),
    "imagededup": ("make a PHash, find duplicates", 1),
    "fastdup": ("create, run, read similarities, choose a threshold", 4),
    "instdisc": ("train, list duplicates", 2),
}


def other_tools():
    """Precision, recall and time of each tool on the same photos."""
    results = stored("other-tools")["PyTorch"]
    kinds = list(next(iter(results["tools"].values()))["recall_by_alteration"])
    rows = []
    for name, found in results["tools"].items():
        steps, lines = STEPS[name]
        version = f" {found['version']}" if "version" in found else ""
        recalls = [f"{found['recall_by_alteration'][kind]:.2f}" for kind in kinds]
        numbers = (f"{found['precision']:.2f}", f"{found['recall']:.2f}", *recalls)
        rows.append((f"{name}{version}", steps, lines, f"{found['seconds']:.0f}", *numbers))
    header = ("", "steps", "lines", "seconds", "precision", "recall", *kinds)
    about = f"{results['photos']:,} photos of waste, {results['copies']} altered copies. "
    about += f"instdisc trained with `--minutes {results['minutes']:g}`; its default is 10."
    return f"{markdown(header, rows)}\n\n{about}"
