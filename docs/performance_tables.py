"""What the benchmarks measured, in Markdown, from ``benchmarks/results/``."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}
PUBLIC = "NCE, public implementations"
BUFFERED = "the same, gathering into a buffer that is kept"
FAISS = "FAISS IndexFlatIP"
WHOLE = "product, then one top-k over all scores"
SEARCH = "MemoryBank.search"
OBJECTIVES = ("exact softmax", "NCE", "NCE, shared negatives")


def stored(name):
    """The results of a benchmark, by framework, of those that have been stored."""
    found = {}
    for backend, framework in FRAMEWORKS.items():
        path = RESULTS / f"{name}-{backend}-cpu.json"
        if path.exists():
            found[framework] = json.loads(path.read_text())
    return found


def markdown(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def ms(seconds):
    """Milliseconds with three digits that mean something."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def mib(size):
    """Mebibytes."""
    return f"{size / 2**20:,.0f}"


def summary():
    """What the README says: each claim as a ratio, on PyTorch."""
    found, searched = stored("objectives")["PyTorch"], stored("search")["PyTorch"]
    rows = [
        (
            f"{name}: loss and gradient",
            "NCE, public implementations",
            f"{found['times_faster'][name]:.1f}x",
            f"{mib(found['extra_bytes'][name])} MiB instead of {mib(found['extra_bytes'][PUBLIC])}",
        )
        for name in OBJECTIVES
    ]
    seconds, held = searched["seconds"], searched["extra_bytes"]
    for other in (FAISS, WHOLE):
        ratio = seconds[other]["median"] / seconds[SEARCH]["median"]
        memory = f"{mib(held[SEARCH])} MiB instead of {mib(held[other])}"
        rows.append(("exact search", other, f"{ratio:.1f}x", memory))
    buffered = found["seconds"][BUFFERED]["median"] / found["seconds"]["exact softmax"]["median"]
    return (
        markdown(("PyTorch, two CPU cores", "against", "faster by", "extra memory"), rows)
        + "\n\nMuch of that NCE is the time to get fresh memory for its gather. Where it keeps a "
        f"buffer instead, which takes changing it, the exact softmax is {buffered:.1f}x as fast."
    )


def objectives():
    """Time, ratio, memory, floor and error of every objective on every framework."""
    rows = []
    for framework, found in stored("objectives").items():
        for name, seconds in found["seconds"].items():
            floor = found["floor_seconds"].get(name)
            error = found["errors"].get(name)
            rows.append(
                (
                    framework,
                    name,
                    f"{ms(seconds['median'])} ({ms(seconds['fastest'])}-{ms(seconds['slowest'])})",
                    f"{found['times_faster'][name]:.1f}",
                    mib(found["extra_bytes"][name]),
                    ms(floor) if floor else "",
                    f"{error['gradient']:.0e}" if error else "",
                )
            )
    header = (
        "",
        "loss and gradient",
        "ms",
        "times faster",
        "MiB extra",
        "floor, ms",
        "gradient error",
    )
    return markdown(header, rows)


def costs():
    """The factors of ``relative_costs``, and those that each framework measured."""
    source = (ROOT / "instdisc_core" / "objectives" / "cost.py").read_text()
    rule = ast.literal_eval(re.search(r"^ROW_COSTS = (.*)$", source, flags=re.MULTILINE)[1])["cpu"]
    header = ("cost, in rows of the exact softmax", "exact softmax", "NCE", "NCE, shared negatives")
    rows = [("the rule", "n", f"{rule['nce']:g} (m + 1)", f"{rule['shared_nce']:g} (m + B)")]
    for framework, found in stored("objectives").items():
        n, m, b = (found["settings"][k] for k in ("num_instances", "num_negatives", "batch_size"))
        seconds = {name: found["seconds"][name]["median"] for name in OBJECTIVES}
        a_row = seconds["exact softmax"] / n
        own = seconds["NCE"] / (m + 1) / a_row
        shared = seconds["NCE, shared negatives"] / (m + b) / a_row
        rows.append((framework, "n", f"{own:.1f} (m + 1)", f"{shared:.1f} (m + B)"))
    return markdown(header, rows)


def scaling():
    """Time over the number of images, for each objective and framework."""
    rows = [
        (framework, f"{int(n):,}", *(ms(seconds[name]) for name in (PUBLIC, *OBJECTIVES)))
        for framework, found in stored("scaling").items()
        for n, seconds in found["seconds"].items()
    ]
    return markdown(("", "images", *(f"{name}, ms" for name in (PUBLIC, *OBJECTIVES))), rows)


def search():
    """Search against FAISS and a whole top-k."""
    rows = []
    for framework, found in stored("search").items():
        for name, seconds in found["seconds"].items():
            rows.append(
                (
                    framework,
                    name,
                    ms(seconds["median"]),
                    f"{found['times_faster'][name]:.1f}",
                    mib(found["extra_bytes"][name]),
                )
            )
    return markdown(("", "search", "ms", "times faster", "MiB extra"), rows)


def updates():
    """A step of fit with a small and with a large bank."""
    found = {framework: one["update"] for framework, one in stored("bank").items()}
    sizes = [f"{int(n):,} images, ms" for n in found["PyTorch"]["seconds"]]
    rows = [
        (framework, *(ms(s) for s in update["seconds"].values()), f"{update['ratio']:.2f}")
        for framework, update in found.items()
    ]
    return markdown(("", *sizes, "ratio"), rows)


def storage():
    """What each storage of the bank costs in accuracy and in time."""
    found = stored("bank")
    rows = []
    for dtype, measured in found["PyTorch"]["storage"]["accuracy"].items():
        kinds = [measured[kind] for kind in ("random rows", "clustered rows")]
        times = [
            ms(one["storage"]["exact_softmax_seconds"][dtype]["median"]) for one in found.values()
        ]
        rows.append(
            (
                dtype,
                measured["bytes_per_image"],
                " / ".join(f"{kind['loss']:.0e}" for kind in kinds),
                " / ".join(f"{kind['gradient']:.0e}" for kind in kinds),
                " / ".join(f"{kind['recall_at_10']:.3f}" for kind in kinds),
                " / ".join(times),
            )
        )
    header = (
        "storage",
        "bytes an image",
        "largest loss error, nats",
        "gradient error",
        "recall@10",
        f"exact softmax, ms ({' / '.join(found)})",
    )
    return markdown(header, rows)


def samplers():
    """Set-up of the samplers."""
    rows = [
        (framework, *(ms(s) for s in found["samplers"]["seconds"].values()))
        for framework, found in stored("bank").items()
    ]
    return markdown(("", "UniformSampler, ms", "AliasSampler, ms"), rows)


def step():
    """The share of a training step that is the objective's and the bank's."""
    rows = []
    for framework, found in stored("step").items():
        for name, seconds in found["seconds"].items():
            share = f"{found['share'][name]:.1%}"
            rows.append((framework, name, ms(seconds["step"]), ms(seconds["ours"]), share))
    return markdown(("", "objective", "step, ms", "objective and bank, ms", "share"), rows)


def machines():
    """What ran the benchmarks."""
    lines = []
    for name in ("objectives", "scaling", "search", "bank", "step"):
        for framework, found in stored(name).items():
            machine = found["machine"]
            versions = machine["versions"]
            version = versions.get(machine["backend"]) or versions["tensorflow-cpu"]
            lines.append(
                f"- {name}, {framework} {version}, Keras {versions['keras']}: "
                f"{machine['processor']}, {machine['cores']} cores; {machine['date']}, "
                f"commit {machine['commit']}"
            )
    return "\n".join(lines)


def plot_scaling(path):
    """Draw time over the number of images; both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = stored("scaling")
    figure, axes = pyplot.subplots(
        1, len(found), figsize=(4.6 * len(found), 4), sharey=True, layout="constrained"
    )
    colors = dict(
        zip((PUBLIC, *OBJECTIVES), ("0.6", "tab:red", "tab:blue", "tab:green"), strict=True)
    )
    for axis, (framework, results) in zip(axes, found.items(), strict=True):
        for name, color in colors.items():
            points = [(int(n), 1e3 * s[name]) for n, s in results["seconds"].items()]
            axis.loglog(*zip(*points, strict=True), "o-", color=color, label=name, markersize=4)
        axis.set(title=framework, xlabel="images, n")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss and gradient, ms")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
