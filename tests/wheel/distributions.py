"""Build the sdist and the wheel as they are published, check both, and run tests of the sdist."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LOCAL = ("*.egg-info", "__pycache__", "build", "dist", "demo-output", "site")
PARTS = ("instdisc_core", "backends", "benchmarks", "docs", "examples", "tests", ".ci")
NAMES = ("architecture", "validation", "readme", "registry")
TESTS = [f"tests/test_{name}.py" for name in NAMES]


def run(*command, cwd, **variables):
    print("$", *command, flush=True)
    environment = {**os.environ, **variables}
    subprocess.run([sys.executable, *map(str, command)], cwd=cwd, check=True, env=environment)


def files(folder):
    """The files of a checkout that others need, relative to it; none that a tool left there."""
    paths = [*folder.glob("*.*"), *(path for part in PARTS for path in (folder / part).rglob("*"))]
    paths = [path.relative_to(folder) for path in paths if path.is_file()]
    local = {"__pycache__", ".hypothesis", ".gitignore"}
    return {path for path in paths if not local & set(path.parts)}


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    # Not in the checkout, where other environments of tox build at the same time.
    copy = folder / "checkout"
    hidden = shutil.ignore_patterns(".git", ".tox", ".venv", ".*_cache", ".hypothesis", *LOCAL)
    shutil.copytree(CHECKOUT, copy, ignore=hidden)
    run("-m", "build", "--outdir", folder, copy, cwd=folder)
    run(
        "-m",
        "twine",
        "check",
        "--strict",
        *folder.glob("*.whl"),
        *folder.glob("*.tar.gz"),
        cwd=folder,
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    missing = files(copy) - files(unpacked)
    assert not missing, f"not in the sdist: {sorted(map(str, missing))}"
    run("docs/render.py", "--check", cwd=unpacked)
    path = os.pathsep.join(map(str, (unpacked, unpacked / "backends")))
    options = "-q", "-p", "no:cacheprovider", "-k", "not readme_s_model"  # that one trains
    run("-m", "pytest", *options, *TESTS, cwd=unpacked, PYTHONPATH=path)
