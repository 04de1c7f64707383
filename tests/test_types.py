"""What mypy and pyright say about a user's script: nothing where it is right, one error where not.

Run in tox's environment ``types``, which needs no framework: checkers read, and import nothing.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RIGHT = """
import keras
import numpy as np

from instdisc_core import InstanceDiscrimination, MemoryBank, recipes
from instdisc_core.data import ImageFolder
from instdisc_core.index import ImageIndex

encoder = keras.layers.Flatten()
features = np.eye(4, dtype="float32")
source = ImageFolder("photos", 64, corrupt="skip")
model = InstanceDiscrimination(encoder, len(source), 4, objective="non_parametric_softmax")
model.compile(optimizer="sgd")
model.fit(source.batches(4, seed=0), epochs=2)
bank = MemoryBank(10, 4, momentum=0.5, dtype="float16")
bank.update(np.arange(4), features)
found = bank.search(features, k=3)
print(found.scores.shape, found.indices.shape)
scores, indices = bank.search(features, k=3)
index = ImageIndex.from_model(model, source)
print(recipes.get("small-cifar10", epochs=2).epochs)
log_z = bank.attend(features, 0.07).log_z
print(index.search(source, k=3).indices, index.near_duplicates(0.3).groups[0], index.names[0])
""".strip().splitlines()
WRONG = [
    'MemoryBank("ten", 4)',
    'ImageFolder("photos", 64, corrupt="skp")',
    'InstanceDiscrimination(encoder, 10, objective="exakt")',
    "print(found.score)",
    "print(bank.attend(features, 0.07).logz)",
    'recipes.get("small-cifar11")',
    "print(index.near_duplicates().copies)",
]


def mypy(script):
    """The lines in which mypy finds an error, each as often as it does."""
    command = ["-m", "mypy", "--config-file=", "--ignore-missing-imports", "--no-error-summary"]
    command += ["--follow-imports=silent", f"--cache-dir={script.parent}", script.name]
    printed = run(script, command, MYPYPATH=os.pathsep.join([str(ROOT), str(ROOT / "backends")]))
    found = re.findall(rf"^{re.escape(script.name)}:(\d+): error: ", printed, flags=re.M)
    return Counter(map(int, found))


def pyright(script):
    """The lines in which pyright finds an error, each as often as it does."""
    settings = {"extraPaths": [str(ROOT), str(ROOT / "backends")]}
    (script.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["-m", "pyright", "--outputjson", "--pythonpath", sys.executable, script.name]
    said = json.loads(run(script, command))
    errors = [e for e in said["generalDiagnostics"] if e["severity"] == "error"]
    return Counter(e["range"]["start"]["line"] + 1 for e in errors)


def run(script, command, **environment):
    """What a checker prints; it ends with 1 where it finds errors, and with more where it fails."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=script.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[mypy, pyright], ids=lambda checker: checker.__name__)
def errors(request, tmp_path_factory):
    """The lines that a checker objects to in the right lines with the wrong ones after them."""
    if not find_spec(request.param.__name__):
        pytest.skip(f"{request.param.__name__} is not installed; `tox run -e types` has it")
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text("\n".join([*RIGHT, *WRONG]))
    return request.param(script)


def test_a_script_that_is_right_has_no_error(errors):
    assert {RIGHT[line - 1] for line in errors if line <= len(RIGHT)} == set()


@pytest.mark.parametrize("line", WRONG)
def test_what_is_wrong_is_one_error_in_its_line(errors, line):
    assert errors[len(RIGHT) + 1 + WRONG.index(line)] == 1
