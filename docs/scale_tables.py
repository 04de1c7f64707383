"""What larger banks and several devices cost, in Markdown: measured, and predicted."""

from performance_tables import markdown, mib, ms, stored

from benchmarks import cost_model, scale
from benchmarks.names import PLACES, STORAGE_OPERATIONS

BATCH, D, NEGATIVES = 256, 128, 4096  # of each GPU; width of a row; negatives


def gigabytes(size):
    """Gigabytes, of 1e9 bytes, with three digits."""
    return f"{size / 1e9:.3g}"


def megabytes(size):
    """Megabytes, of 1e6 bytes, with three digits."""
    return whole(size / 1e6)


def whole(x):
    """A number with three digits, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def places():
    """Each operation on the device, in the host's memory and in a file."""
    rows, sizes = [], []
    for framework, found in stored("storage").items():
        for dtype, operations in found["seconds"].items():
            for name in STORAGE_OPERATIONS:
                device, *others = (operations[name][place]["median"] for place in PLACES)
                cells = [f"{ms(s)} ({s / device:.1f}x)" for s in others]
                rows.append((framework, dtype, name, ms(device), *cells))
        s, machine = found["settings"], found["machine"]
        sizes.append(
            f"{framework}: {s['num_instances']:,} rows of {s['embedding_dim']}, batch "
            f"{s['batch_size']}, {s['num_negatives']:,} negatives of each image's own, "
            f"{s['rounds']} rounds; {machine['processor']}, commit {machine['commit']}."
        )
    header = ("", "storage", "", *(f"{place}, ms" for place in PLACES))
    return markdown(header, rows) + "".join(f"\n\n{line}" for line in sizes)


def large():
    """A bank of 100 million rows, from its creation to a search."""
    found = stored("storage-large")["PyTorch"]
    created, used = found["stages"]["create"], found["stages"]["use"]
    rows = [("create", whole(created["seconds"]["create"]), "")]
    for name, seconds in used["seconds"].items():
        again = used["seconds"].get(f"{name}, again")
        if not name.endswith(", again"):
            rows.append((name, whole(seconds), "" if again is None else whole(again)))
    s, machine = found["settings"], found["machine"]
    created_mib, used_mib = (
        mib(stage["after"]["anonymous"] - stage["before"]["anonymous"]) for stage in (created, used)
    )
    lines = [
        f"{s['large']:,} rows of {s['embedding_dim']} numbers in {s['dtype']}, "
        f"{gigabytes(found['file_bytes'])} GB. Memory of the process, without pages of the file, "
        f"which the system takes back when it needs them: {created_mib} MiB more after the "
        f"creation, {used_mib} MiB more after the last search. With these pages the process of "
        f"the searches held up to {gigabytes(used['peak'])} GB.",
        f"{machine['processor']}, one thread of {machine['cores']} shared cores; "
        f"{machine['date']}, commit {machine['commit']}.",
    ]
    if "processor_seconds" in used:
        share = sum(used["processor_seconds"].values()) / sum(used["seconds"].values())
        lines.append(
            f"Others used the cores, too: the process of the searches had {share:.0%} of one, and "
            "what it took says little about a quiet machine."
        )
    return f"{markdown(('', 's', 's, again'), rows)}\n\n{' '.join(lines)}"


def scale_checks():
    """Predictions next to measurements."""
    rows = []
    for check in scale.checks():
        cells = (
            (f"{ms(x)} ms" for x in (check.predicted, check.measured))
            if check.unit == "s"
            else (f"{x:,} bytes" for x in (check.predicted, check.measured))
        )
        rows.append((check.what, check.source, *cells, f"{check.ratio:.2f}"))
    return markdown(("predicted", "from", "predicted", "measured", "ratio"), rows)


def bank_memory():
    """Bytes of the rows on each GPU."""
    rows = []
    for n in scale.IMAGES:
        for dtype in scale.DTYPES:
            cells = (gigabytes(cost_model.bank_bytes(n, D, dtype, r)) for r in scale.RANKS)
            rows.append((f"{n:,}", dtype, *cells))
    header = ("images", "storage", "whole, GB", *(f"a part of {r}, GB" for r in scale.RANKS[1:]))
    return markdown(header, rows)


def rank_traffic():
    """What a rank contributes and sends in a step, by objective, layout and ranks."""
    rows = []
    for ranks in (2, *scale.RANKS[1:]):
        for name, label in scale.OBJECTIVES.items():
            cells = []
            for sharded in (False, True):
                found = cost_model.traffic(name, BATCH * ranks, D, NEGATIVES, ranks, sharded)
                cells.append(f"{megabytes(found.sent(ranks))} in {found.collectives}")
            rows.append((ranks, label, *cells))
    gradients = cost_model.Traffic(0, int(cost_model.PARAMETERS) * cost_model.FLOAT, 1)
    sent = ", ".join(f"{megabytes(gradients.sent(r))} at {r}" for r in (2, *scale.RANKS[1:]))
    return (
        markdown(("ranks", "objective", "whole bank, MB", "a part each, MB"), rows)
        + f"\n\nIn addition, the gradients of a ResNet-50, in MB: {sent}."
    )


def step_times():
    """Predicted steps."""
    rows = []
    for n, ranks, steps in scale.predictions():
        some = steps["exact"]
        encoder = some.encoder + some.gradients
        cells = (
            f"{1e3 * (s.objective + s.exchange):,.1f} ({(s.seconds - encoder) / s.seconds:.0%})"
            for s in steps.values()
        )
        rows.append(
            (f"{n:,}", ranks, some.layout, gigabytes(some.bank), f"{1e3 * encoder:.0f}", *cells)
        )
    header = ("images", "GPUs", "bank", "GB", "encoder and gradients, ms")
    return markdown((*header, *(f"{x}, ms" for x in scale.OBJECTIVES.values())), rows)
