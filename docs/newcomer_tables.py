"""The stored result of ``python -m benchmarks.newcomer``, in Markdown."""

from performance_tables import markdown, stored

STEPS = {
    "install": "a new environment; `pip install` of PyTorch for the CPU, then of this project",
    "train": "`instdisc train`, with the index",
    "serve": "`instdisc serve`, until it says its address",
    "open the page": "open the page in Chromium",
    "drop a copy": "drop an altered copy, until the page shows the photos like it",
    "export": "`instdisc export found -o photos.parquet`",
    "read": "read it with pyarrow",
}


def newcomer():
    """The seconds of each step, and how often an altered copy found its original."""
    found = stored("newcomer")["PyTorch"]
    drops, installed, machine = found["drops"], found["installed"], found["machine"]
    rows = [
        (text, *(_seconds(found["steps"][name][kind]) for kind in ("wall", "processor")))
        for name, text in STEPS.items()
    ]
    minutes = "" if found["minutes"] is None else f"`--minutes {found['minutes']:g}`, "
    also = f", {found['note']}" if found.get("note") else ""
    about = (
        f"{found['photos']:,} photos of waste and groceries, {minutes}{found['epochs']} epochs; "
        f"PyTorch {installed['torch']}, Keras {installed['keras']}. {machine['cores']} cores of an "
        f"{machine['processor']}{also}; {machine['date']}. {drops['copies']} copies, "
        f"each cropped to 90 % and compressed again, were dropped: {drops['first']} had their "
        f"original first, {drops['among_ten']} among the first ten, and each took "
        f"{drops['seconds']:.1f} s by the median. The parquet file had "
        f"{found['parquet']['rows']:,} rows."
    )
    return markdown(("", "seconds", "of the processor"), rows) + "\n\n" + about


def _seconds(seconds):
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}"
