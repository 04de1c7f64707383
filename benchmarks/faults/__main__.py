"""Kills trainings, damages files, and measures what checkpoints cost.

KERAS_BACKEND=torch python -m benchmarks.faults             # everything
KERAS_BACKEND=torch python -m benchmarks.faults --kills     # or --files, --cost
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import harness
from benchmarks.faults import cost, files, kills

PARTS = ("kills", "files", "cost")


def run_kills(args):
    """Kill, fill disks, start twice."""
    with tempfile.TemporaryDirectory() as folder:
        found = kills.measure(Path(folder), args.seed, args.random)
    counts = {}
    for kill in found["kills"]:
        count = counts.setdefault(kill["kind"], [0, 0])
        count[0] += 1
        count[1] += bool(kill["differences"])
    harness.table(("kills", "", "different"), [(kind, *count) for kind, count in counts.items()])
    print("full disks:", *found["full_disks"], sep="\n  ")
    print("second process:", found["second_process"])
    return found


def run_files(args):
    """Damage files, and read them."""
    found = files.measure(args.share)
    kinds = ("rejected", "equal", "decoded", "wrong", "crash")
    rows = [
        (name, *(counts.get(kind, 0) for kind in kinds))
        for name, counts in found["by_loader"].items()
    ]
    harness.table((f"{found['files']} files", *kinds), rows)
    print("faults:", *found["faults"], sep="\n  ")
    return found


def run_cost(args):
    """Time steps and checkpoints."""
    found = cost.measure()
    rows = [
        (
            name,
            f"{1e3 * c['step_seconds']:.0f}",
            f"{1e3 * c['save_seconds']:.0f}",
            f"{c['share']:.2%}",
        )
        for name, c in found.items()
    ]
    harness.table(("recipe", "step ms", "checkpoint ms", f"share, every {cost.EVERY} steps"), rows)
    return found


def main():
    """Parse, run the parts, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true", help="this part alone")
    parser.add_argument("--seed", type=int, default=0, help="of the times of random kills")
    parser.add_argument("--random", type=int, default=6, help="how many kills at random times")
    parser.add_argument("--share", type=float, default=1.0, help="of the damaged files")
    args = parser.parse_args()
    chosen = [part for part in PARTS if getattr(args, part)] or PARTS
    for part in chosen:
        found = {"kills": run_kills, "files": run_files, "cost": run_cost}[part](args)
        harness.write(f"faults-{part}", {"settings": vars(args), "found": found})


if __name__ == "__main__":
    main()
