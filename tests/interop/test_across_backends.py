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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of the models, and of what JAX has compiled."""
    return tmp_path_factory.mktemp("models")


def run(folder, backend, *arguments):
    """What ``worker.py`` prints under this backend."""
    environment = {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, HERE / "worker.py", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def result(lines):
    (line,) = (line for line in lines if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))


@pytest.fixture(scope="module")
def printed(folder):
    """What a process of each backend prints, which runs the script, and trains and saves models."""
    tasks = ("save", str(folder), "ten_lines.py", *OBJECTIVES)
    return {backend: run(folder, backend, *tasks) for backend in BACKENDS}


@pytest.fixture(scope="module")
def saved(printed):
    return {backend: result(lines) for backend, lines in printed.items()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ten_line_script_runs_unchanged(backend, printed):
    lines = [line for line in printed[backend] if not line.startswith("RESULT")]
    assert len(lines) == len(OBJECTIVES)
    for line in lines:
        name, *losses = line.split()
        assert name == backend
        losses = [float(loss) for loss in losses]
        assert len(losses) == 5
        assert np.all(np.isfinite(losses))
        assert losses[-1] < losses[0]


def test_exact_softmax_losses_agree(saved):
    losses = {backend: saved[backend]["losses"] for backend in BACKENDS}
    for backend in BACKENDS[1:]:
        np.testing.assert_allclose(losses[backend], losses[BACKENDS[0]], atol=1e-4, rtol=0)
    assert losses["jax"][-1] < losses["jax"][0]


@pytest.mark.parametrize("reader", BACKENDS)
def test_a_model_saved_under_any_is_read_under_any(folder, saved, reader):
    read = result(run(folder, reader, "load", str(folder), *BACKENDS))
    for writer in BACKENDS:
        before, after = saved[writer], read[writer]
        np.testing.assert_array_equal(after["exact"]["rows"], before["exact"]["rows"])
        np.testing.assert_allclose(
            after["exact"]["embeddings"], before["exact"]["embeddings"], atol=2e-6
        )
        np.testing.assert_allclose(after["exact"]["loss"], before["exact"]["loss"], atol=1e-5)
        np.testing.assert_allclose(after["next"], before["next"], atol=1e-4)
        assert after["log_z"] == before["log_z"]
        assert len(after["continued"]) == 1, "the third epoch alone"
        assert np.all(np.isfinite(after["continued"]))
        before, after = before["neighbors"], after["neighbors"]
        assert after["held"] == before["held"]
        np.testing.assert_allclose(after["embeddings"], before["embeddings"], atol=1e-5)
        np.testing.assert_allclose(after["loss"], before["loss"], atol=1e-4)
