"""The stored results of ``python -m benchmarks.faults``, in Markdown."""

from performance_tables import markdown, ms, stored

VERDICTS = {  # of ``benchmarks.faults.judge``, and their names in the table
    "rejected": "rejected by name",
    "equal": "loaded, equal",
    "decoded": "other pixels",
    "wrong": "loaded, wrong",
    "crash": "crash",
}


def kills():
    """How many trainings were killed where, and how many ended with other results."""
    found = {framework: one["found"]["kills"] for framework, one in stored("faults-kills").items()}
    everything = [kill for kills in found.values() for kill in kills]
    kinds = [(kind, [kind]) for kind in dict.fromkeys(kill["kind"] for kill in everything)]
    rows = []
    for name, named in [*kinds, ("all", [kind for _, [kind] in kinds])]:
        counts = [sum(kill["kind"] in named for kill in kills) for kills in found.values()]
        differ = sum(bool(kill["differences"]) for kill in everything if kill["kind"] in named)
        rows.append((name, *counts, differ))
    return markdown(("killed", *found, "runs that ended different"), rows)


def other_faults():
    """The effects of full disks, and of a second process in the same folder."""
    rows = []
    for framework, one in stored("faults-kills").items():
        full, second = one["found"]["full_disks"], one["found"]["second_process"]
        rows.append(
            (
                framework,
                len(full),
                sum(disk["named"] for disk in full),
                sum(disk["intact"] for disk in full),
                sum(bool(disk["differences"]) for disk in full) + bool(second["differences"]),
                "yes" if second["named"] else "no",
            )
        )
    header = (
        "",
        "full disks",
        "errors that say so",
        "earlier files intact",
        "runs that ended different",
        "a second process is rejected by name",
    )
    return markdown(header, rows)


def files():
    """What each loader did with damaged files."""
    found = [one["found"] for one in stored("faults-files").values()]
    names = list(dict.fromkeys(name for one in found for name in one["by_loader"]))
    rows = []
    for name in names:
        counts = [one["by_loader"].get(name, {}) for one in found]
        kinds = [sum(count.get(kind, 0) for count in counts) for kind in VERDICTS]
        rows.append((name, sum(kinds), *kinds))
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, len(rows[0])))))
    ran = sum(bool(fault["executions"]) for one in found for fault in one["faults"])
    each = ", ".join(
        f"{one['found']['files']:,} on {framework}"
        for framework, one in stored("faults-files").items()
    )
    table = markdown(("read by", "files", *VERDICTS.values()), rows)
    return f"{table}\n\nFiles: {each}. Files whose loading ran code or started a process: {ran}."


def checkpoint_cost():
    """The time of a checkpoint against that of a hundred steps."""
    rows = [
        (
            framework,
            f"`{recipe}`",
            f"{cost['images']:,}",
            ms(cost["step_seconds"]),
            ms(cost["save_seconds"]),
            f"{cost['bytes'] / 2**20:.0f}",
            f"{cost['share']:.2%}",
        )
        for framework, one in stored("faults-cost").items()
        for recipe, cost in one["found"].items()
    ]
    header = (
        "",
        "recipe",
        "images",
        "step, ms",
        "checkpoint, ms",
        "MiB",
        "share of 100 steps",
    )
    return markdown(header, rows)
