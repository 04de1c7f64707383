"""Near-duplicates by other tools, each with its defaults, in an environment of its own.

    KERAS_BACKEND=torch python -m benchmarks.other_tools photos \
        --python cleanvision=one/bin/python imagededup=two/bin/python fastdup=three/bin/python

Altered copies are planted among the photos of a folder, as ``benchmarks.near_duplicates`` does, and
written as files. Each tool says which pairs are nearly the same. The time is the processor's, over
all of its processes, from its start to its list of pairs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import harness, near_duplicates

# Each prints, on its last line, the pairs of file names that it reports, as JSON.
CLEANVISION = """
from cleanvision import Imagelab
lab = Imagelab(data_path="photos")
lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1)
sets = [s for kind in ("near", "exact") for s in lab.info[kind + "_duplicates"]["sets"]]
pairs = [(a, b) for group in sets for a in group for b in group]
"""
IMAGEDEDUP = """
from imagededup.methods import PHash
found = PHash().find_duplicates(image_dir="photos", num_enc_workers=0, num_dist_workers=0)
pairs = [(a, b) for a, others in found.items() for b in others]
"""
FASTDUP = """
import fastdup
run = fastdup.create(work_dir="fastdup", input_dir="photos")
run.run(num_threads=1)
table = run.similarity()
table = table[table["distance"] >= 0.9]  # cosines; 0.9 is its own threshold
pairs = list(zip(table["filename_from"], table["filename_to"]))
"""
PRINT = """
import json
from pathlib import Path
print(json.dumps([[Path(a).name, Path(b).name] for a, b in pairs]))
"""
INSTDISC = "from instdisc_core.command_line import main; main()"
TOOLS = {"cleanvision": CLEANVISION, "imagededup": IMAGEDEDUP, "fastdup": FASTDUP}


def run(*command, folder):
    """What a command prints last, and the seconds of the processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stdout, seconds


def instdisc(folder, minutes):
    """The pairs of ``instdisc train`` and ``instdisc duplicates``, and the seconds of both."""
    call = (sys.executable, "-c", INSTDISC)
    _, training = run(*call, "train", "photos", "-m", str(minutes), "-q", folder=folder)
    printed, listing = run(*call, "duplicates", "--json", folder=folder)
    return [pair["names"] for pair in json.loads(printed)["pairs"]], training + listing


def version(python, name):
    """The version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return run(python, "-c", code, folder=".")[0].strip()


def scored(pairs, planted):
    """Precision of the pairs of names, and the recall of each alteration."""
    pairs = {tuple(sorted(pair)) for pair in pairs if pair[0] != pair[1]}
    right = pairs & planted.keys()
    kinds = {kind: [p for p in planted if planted[p] == kind] for kind in planted.values()}
    return {
        "pairs": len(pairs),
        "precision": len(right) / max(1, len(pairs)),
        "recall": len(right) / len(planted),
        "recall_by_alteration": {
            k: sum(p in pairs for p in of) / len(of) for k, of in kinds.items()
        },
    }


def main():
    """Plant, ask every tool, and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--python", nargs="+", default=[], metavar="TOOL=PATH")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=2)
    args = parser.parse_args()
    pythons = dict(entry.split("=", 1) for entry in args.python)
    source = near_duplicates.photos(args.photos, args.count)
    _, files, planted = near_duplicates.plant(source, args.each)
    results = {"photos": len(source), "copies": len(planted), "minutes": args.minutes, "tools": {}}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "photos").mkdir()
        for number, image in enumerate(files):
            Path(folder, "photos", f"{number}.jpg").write_bytes(image.fp.getvalue())
        names = {tuple(sorted(f"{i}.jpg" for i in pair)): kind for pair, kind in planted.items()}
        for name, python in pythons.items():
            printed, seconds = run(python, "-c", TOOLS[name] + PRINT, folder=folder)
            found = scored(json.loads(printed.splitlines()[-1]), names)
            found |= {"seconds": seconds, "version": version(python, name)}
            results["tools"][name] = found
        pairs, seconds = instdisc(folder, args.minutes)
        results["tools"]["instdisc"] = {**scored(pairs, names), "seconds": seconds}
    for name, found in results["tools"].items():
        print(name, found, flush=True)
    harness.write("other-tools", results)


if __name__ == "__main__":
    main()
