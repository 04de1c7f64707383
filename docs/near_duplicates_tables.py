"""The stored results of ``python -m benchmarks.near_duplicates``, in Markdown."""

from performance_tables import markdown, stored

METHODS = (
    "whitened features, default threshold",
    "whitened features",
    "whitened features, cosine alone",
    "learned embedding",
    "learned encoder, conv4",
    "untrained encoder",
    "raw pixels",
    "raw pixels, cosine alone",
    "perceptual hash",
)


def _found():
    return stored("near-duplicates")["PyTorch"]


def near_duplicates():
    """Precision and recall of each method on each set."""
    rows = []
    for name, one in _found()["sets"].items():
        label = f"{name}: {one['photos']:,} photos, {one['copies']} copies"
        for method in METHODS:
            found = one["methods"][method]
            numbers = (f"{found[key]:.2f}" for key in ("precision", "recall", "f1"))
            rows.append((label, method, f"{found['threshold']:.3f}", *numbers))
            label = ""
    return markdown(("", "method", "threshold", "precision", "recall", "F1"), rows)


def alterations():
    """The recall of each alteration, over all sets but the one that thresholds are chosen on."""
    sets = [one for name, one in _found()["sets"].items() if name != "chosen on"]
    names = list(sets[0]["methods"][METHODS[0]]["recall_by_alteration"])
    rows = []
    for name in names:
        cells = []
        for method in METHODS:
            recalls = [one["methods"][method]["recall_by_alteration"][name] for one in sets]
            cells.append(f"{sum(recalls) / len(recalls):.2f}")
        rows.append((name, *cells))
    return markdown(("recall, mean of the sets", *METHODS), rows)


def all_pairs():
    """The time of what looks at all pairs, next to that of one product of them, by framework."""
    found = {
        f"{framework}, {size:,}": one
        for size in (50_000, 100_000)
        for framework, one in stored(f"all-pairs-{size}").items()
    }
    one = list(found.values())[-1]
    rows = [
        (name, *(f"{each['calls'][name]['seconds']:.0f}" for each in found.values()))
        for name in one["calls"]
    ]
    peak = max(each["calls"][rows[0][0]]["bytes"] for each in found.values()) / 2**20
    about = (
        f"Random embeddings of {one['width']} numbers, some with a copy nearby; all copies, and "
        f"nothing else, were found. {one['machine']['processor']}, one thread, on "
        f"{one['machine']['cores']} cores in use by others, too. `{rows[0][0]}` took up to "
        f"{peak:,.0f} MiB on top of the embeddings."
    )
    return markdown(("seconds of the processor", *found), rows) + "\n\n" + about
