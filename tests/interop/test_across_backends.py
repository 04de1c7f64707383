"""The same numbers on every framework, and files that any of them can read."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
BACKENDS = ("torch", "tensorflow", "jax")
OBJECTIVES = ("nce", "non_parametric_softmax", "info_nce", "parametric_softmax")

if not all(map(find_spec, BACKENDS)):
    pytest.skip("needs all three frameworks", allow_module_level=True)


def run(backend, script, *arguments):
    """The standard output of a script under this backend."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def result(backend, *arguments):
    line = [x for x in run(backend, "worker.py", *arguments).splitlines() if x.startswith("RESULT")]
    return json.loads(line[-1].removeprefix("RESULT"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ten_line_script_runs_unchanged(backend):
    lines = run(backend, "worker.py", "script", "ten_lines.py", *OBJECTIVES).splitlines()
    assert len(lines) == len(OBJECTIVES)
    for line in lines:
        name, *losses = line.split()
        assert name == backend
        losses = [float(loss) for loss in losses]
        assert len(losses) == 5
        assert np.all(np.isfinite(losses))
        assert losses[-1] < losses[0]


def test_exact_softmax_losses_agree(saved):
    losses = {backend: saved[1][backend]["losses"] for backend in BACKENDS}
    for backend in BACKENDS[1:]:
        np.testing.assert_allclose(losses[backend], losses[BACKENDS[0]], atol=1e-4, rtol=0)
    assert losses["jax"][-1] < losses["jax"][0]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("models"))
    return folder, {backend: result(backend, "save", folder) for backend in BACKENDS}


@pytest.mark.parametrize("reader", BACKENDS)
def test_a_model_saved_under_any_is_read_under_any(saved, reader):
    folder, written = saved
    read = result(reader, "load", folder, *BACKENDS)
    for writer in BACKENDS:
        before, after = written[writer], read[writer]
        np.testing.assert_array_equal(after["exact"]["rows"], before["exact"]["rows"])
        np.testing.assert_allclose(
            after["exact"]["embeddings"], before["exact"]["embeddings"], atol=2e-6
        )
        np.testing.assert_allclose(after["exact"]["loss"], before["exact"]["loss"], atol=1e-5)
        np.testing.assert_allclose(after["next"], before["next"], atol=1e-4)
        assert after["log_z"] == before["log_z"]
        before, after = before["neighbors"], after["neighbors"]
        assert after["held"] == before["held"]
        np.testing.assert_allclose(after["embeddings"], before["embeddings"], atol=1e-5)
        np.testing.assert_allclose(after["loss"], before["loss"], atol=1e-4)
