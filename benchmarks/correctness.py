"""The tests of the numbers on this device: the primitives, the kernels, and every objective.

    KERAS_BACKEND=torch python -m benchmarks.correctness

Each is compared with float64. Stores how many passed, and the names of those that failed.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks import harness

ROOT = Path(__file__).parent.parent
TESTS = (
    "tests/backends/test_bank_ops.py",
    "tests/backends/test_triton.py",
    "tests/test_objectives.py",
    "tests/test_memory_bank.py",
)


def outcomes(report):
    """How many tests passed and were skipped, and the names of the others, from JUnit's XML."""
    found = {"passed": 0, "skipped": 0, "failed": []}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            found["failed"].append(f"{case.get('classname')}::{case.get('name')}")
        else:
            found["passed" if case.find("skipped") is None else "skipped"] += 1
    return found


def main():
    """Run the tests in a process of their own, write, and end with their status."""
    parser = harness.parser(__doc__)
    parser.add_argument("--tests", nargs="+", default=TESTS, help="files, from the checkout")
    parser.add_argument("--select", default="", help="pytest's -k: only tests of such names")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = ["-m", "pytest", "-q", f"--junitxml={report}", "-k", args.select, *args.tests]
        status = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
        found = outcomes(report)
    harness.table(
        ("passed", "skipped", "failed"),
        [(found["passed"], found["skipped"], len(found["failed"]))],
    )
    harness.write("correctness", {"settings": vars(args), **found})
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
