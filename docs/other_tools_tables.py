"""The stored results of ``python -m benchmarks.other_tools``, in Markdown."""

from performance_tables import markdown, stored

STEPS = {  # what a user writes, in lines, from a folder to pairs
    "cleanvision": ("make an Imagelab, find issues, read its sets", 3),
    "imagededup": ("make a PHash, find duplicates", 1),
    "fastdup": ("create, run, read similarities, choose a threshold", 4),
    "instdisc": ("train, list duplicates", 2),
}


def other_tools():
    """Precision, recall and time of each tool on the same photos; and recall by alteration."""
    results = stored("other-tools")["PyTorch"]
    tools, names, rows = list(results["tools"].values()), [], []
    for name, found in results["tools"].items():
        steps, lines = STEPS[name]
        names.append(f"{name} {found['version']}" if "version" in found else name)
        rates = (f"{found['precision']:.2f}", f"{found['recall']:.2f}")
        rows.append((names[-1], steps, lines, f"{found['seconds']:.0f}", *rates))
    tables = [markdown(("", "steps", "lines", "seconds", "precision", "recall"), rows)]
    kinds = [tool["recall_by_alteration"] for tool in tools]
    rows = [(kind, *(f"{one[kind]:.2f}" for one in kinds)) for kind in kinds[0]]
    tables.append(markdown(("recall", *names), rows))
    about = f"{results['photos']:,} photos of waste, {results['copies']} altered copies. "
    about += f"instdisc trained with `--minutes {results['minutes']:g}`; its default is 10."
    return "\n\n".join([*tables, about])
