"""What the benchmarks measured, in Markdown, from ``benchmarks/results/``."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from benchmarks.names import (
    BARE,
    BUFFERED,
    EXACT,
    FAISS,
    FRAMEWORKS,
    KERAS_ENCODER,
    KINDS_OF_ROWS,
    OBJECTIVES,
    PUBLIC,
    SEARCH,
    WHOLE,
)

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def stored(name, device="cpu"):
    """The stored results of a benchmark on one kind of device, by framework."""
    found = {}
    for backend, framework in FRAMEWORKS.items():
        path = RESULTS / f"{name}-{backend}-{device}.json"
        if path.exists():
            found[framework] = json.loads(path.read_text())
    return found


def markdown(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def ms(seconds):
    """Milliseconds with three significant digits."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def mib(size):
    """Mebibytes."""
    return f"{size / 2**20:,.0f}"


def summary():
    """The README's table: ratios of time and memory, on PyTorch."""
    found, searched = stored("objectives")["PyTorch"], stored("search")["PyTorch"]
    rows = [
        (
            f"{name}: loss and gradient",
            PUBLIC,
            f"{found['times_faster'][name]:.1f}x",
            f"{mib(found['extra_bytes'][name])} MiB instead of {mib(found['extra_bytes'][PUBLIC])}",
        )
        for name in OBJECTIVES
    ]
    seconds, held = searched["seconds"], searched["extra_bytes"]
    task = "exact search, one core" if searched["machine"]["cores"] == 1 else "exact search"
    for other in (FAISS, WHOLE):
        ratio = seconds[other]["median"] / seconds[SEARCH]["median"]
        memory = f"{mib(held[SEARCH])} MiB instead of {mib(held[other])}"
        rows.append((task, other, f"{ratio:.1f}x", memory))
    buffered = found["seconds"][BUFFERED]["median"] / found["seconds"][EXACT]["median"]
    return (
        markdown(("PyTorch, two CPU cores", "against", "faster by", "extra memory"), rows)
        + "\n\nMuch of the time of that NCE goes into new memory for its gather. If its code is "
        f"changed to keep a buffer, the exact softmax is {buffered:.1f}x as fast."
    )


def with_missing(name, columns, rows_of):
    """Rows of every framework; one of dashes where it has no stored results.

    Args:
        name: of the benchmark.
        columns: how many cells follow the framework's name.
        rows_of: function of a framework's results that returns its rows, without its name.
    """
    found, rows = stored(name), []
    for framework in FRAMEWORKS.values():
        own = rows_of(found[framework]) if framework in found else [("not measured yet",)]
        rows += [(framework, *row, *[""] * (columns - len(row))) for row in own]
    return rows


def endtoend():
    """Whole epochs against plain code, and the bare step."""

    def rows_of(found):
        rates = found["images_per_second"]
        for name, rate in rates["fit"].items():
            others = [f"{rates[m][name]:.0f}" if name in rates[m] else "" for m in other_calls]
            is_bare = name == BARE
            label = f"{name} ({found['fastest_native']})" if is_bare else name
            times = "" if is_bare else f"{found['times_of_the_bare_step'][name]:.2f}"
            yield (label, f"{rate:.1f}", times, *others)

    other_calls = ("predict", "evaluate")
    header = ("", "epochs", "images/s", "times the bare step", "predict, images/s", "evaluate")
    return markdown(header, with_missing("end_to_end", len(header) - 1, rows_of)) + sizes_of(
        "end_to_end"
    )


def encoders():
    """A training step of the encoder against the same network in the framework itself."""

    def rows_of(found):
        for dtype in ("float32", "bfloat16"):
            measured = found[dtype]
            fastest = measured["seconds"][measured["fastest"]]["median"]
            for name, s in measured["seconds"].items():
                label = "ours" if name == KERAS_ENCODER else name
                yield (dtype, label, ms(s["median"]), f"{s['median'] / fastest:.2f}")

    header = ("", "computed in", "network", "step, ms", "to the fastest native")
    return markdown(header, with_missing("encoders", len(header) - 1, rows_of)) + sizes_of(
        "encoders"
    )


def sizes_of(name):
    """A line on the network and the batch of each stored result."""
    lines = []
    for framework, found in stored(name).items():
        s = found["settings"]
        images = f", {s['images']:,} images an epoch" if "images" in s else ""
        lines.append(
            f"{framework}: ResNet-{s['depth']} of width {s['width']} with the {s['stem']} stem, "
            f"{s['size']} pixels, batch {s['batch_size']}{images}, {s['rounds']} rounds."
        )
    return "".join(f"\n\n{line}" for line in lines)


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


def gpu():
    """Time, memory and error of every objective on a GPU, at two numbers of images."""
    rows = []
    for name in ("objectives", "objectives-1281167"):
        for framework, found in stored(name, "cuda").items():
            images = f"{found['settings']['num_instances']:,}"
            for candidate, seconds in found["seconds"].items():
                error = found["errors"].get(candidate)
                rows.append(
                    (
                        found["machine"]["device"],
                        framework,
                        images,
                        candidate,
                        ms(seconds["median"]),
                        mib(found["extra_bytes"][candidate]),
                        f"{error['gradient']:.0e}" if error else "",
                    )
                )
    header = ("", "", "images", "loss and gradient", "ms", "MiB extra", "gradient error")
    return markdown(header, rows)


def attention():
    """The attention kernel on a GPU with several tiles, and the time of a step."""
    found = json.loads((RESULTS / "attention-torch-cuda.json").read_text())
    measured = {}
    for one in found["measured"]:
        tiles = ", ".join(str(size) for size in one["tiles"] or ())
        measured.setdefault((one["dtype"], tiles), {})[one["rows"]] = one
    sizes = sorted({one["rows"] for one in found["measured"]})
    rows = []
    for (dtype, tiles), by_size in measured.items():
        times = (ms(by_size[n]["ms"] / 1e3) for n in sizes)
        errors = [one["error"] for one in by_size.values() if "error" in one]
        rows.append(
            (dtype, tiles or "two products", *times, f"{max(errors):.1e}" if errors else "")
        )
    header = ("bank", "tiles", *(f"{n:,} images, ms" for n in sizes), "error")
    machine, rates, step = found["machine"], found["rates"], found["step"]
    versions, later = machine["versions"], step["ms_by_epoch"][1:]
    fit = json.loads((RESULTS / "fit-jax-cuda.json").read_text())
    compiled = sorted(fit["ms_by_epoch"][1:])
    middle = compiled[len(compiled) // 2]
    return (
        f"{markdown(header, rows)}\n\nAttention of 256 features over rows of {found['dim']} "
        "dimensions: log Z and expected rows. Tiles: images, rows, warps, stages. Error: the "
        "largest one against float64, over the first 20,000 rows. A copy moves "
        f"{rates['terabytes_per_second']:.0f} TB/s, a product in float32 has "
        f"{rates['tflops_float32']:.0f} TFLOPS. A step of ResNet-18 with batches of "
        f"{step['batch_size']} in {step['dtype_policy']}, run operation by operation, takes "
        f"{min(later):.0f} to {max(later):.0f} ms in Keras, of which the GPU works "
        f"{step['gpu_ms']:.1f}. Compiled by XLA, on JAX, it takes {compiled[0]} to {compiled[-1]} "
        f"ms, {middle} in the median of {len(compiled)} epochs; in the first 40, tests ran on the "
        "same machine, without a visible difference. Single measurements: "
        f"{machine['device']}, PyTorch {versions['torch']}, Triton {versions['triton']}, "
        f"{machine['date']}; JAX {fit['machine']['versions']['jax']}, {fit['machine']['date']}."
    )


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


def few_queries():
    """Search by the number of rows and of queries: ours, FAISS, and a whole top-k."""
    rows = [
        (
            framework,
            f"{one['num_instances']:,}",
            one["queries"],
            *(ms(one["seconds"][name]["median"]) for name in (SEARCH, FAISS, WHOLE)),
        )
        for framework, found in stored("search").items()
        for one in found["sweep"]
    ]
    header = ("", "rows", "queries", *(f"{name}, ms" for name in (SEARCH, FAISS, WHOLE)))
    return markdown(header, rows)


def one_query():
    """One query in a bank of int8, next to reading and copying its bytes."""
    rows = [
        (framework, *(ms(s["median"]) for s in found["int8"]["seconds"].values()))
        for framework, found in stored("search").items()
    ]
    return markdown(("", "search, ms", "reading the bank, ms", "copying it, ms"), rows)


def updates():
    """The time of a step of fit with a small and with a large bank."""
    found = {framework: one["update"] for framework, one in stored("bank").items()}
    sizes = [f"{int(n):,} images, ms" for n in found["PyTorch"]["seconds"]]
    rows = [
        (framework, *(ms(s) for s in update["seconds"].values()), f"{update['ratio']:.2f}")
        for framework, update in found.items()
    ]
    return markdown(("", *sizes, "ratio"), rows)


def storage():
    """The errors and the time of each storage of the bank."""
    found = stored("bank")
    rows = []
    for dtype, measured in found["PyTorch"]["storage"]["accuracy"].items():
        kinds = [measured[kind] for kind in KINDS_OF_ROWS]
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
        "bytes per image",
        "largest loss error, nats",
        "gradient error",
        "recall@10",
        f"exact softmax, ms ({' / '.join(found)})",
    )
    return markdown(header, rows)


def samplers():
    """The time to set up each sampler."""
    rows = [
        (framework, *(ms(s) for s in found["samplers"]["seconds"].values()))
        for framework, found in stored("bank").items()
    ]
    return markdown(("", "UniformSampler, ms", "AliasSampler, ms"), rows)


def step():
    """The share of objective and bank in a training step."""
    rows = []
    for framework, found in stored("step").items():
        for name, seconds in found["seconds"].items():
            share = f"{found['share'][name]:.1%}"
            rows.append((framework, name, ms(seconds["step"]), ms(seconds["ours"]), share))
    return markdown(("", "objective", "step, ms", "objective and bank, ms", "share"), rows)


def machines():
    """The machine, versions and commit of each benchmark."""
    lines = []
    for name in ("end_to_end", "encoders", "objectives", "scaling", "search", "bank", "step"):
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
