"""Replicas of ``tf.distribute``, in one process and in two, end as one device does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from devices.trainings import CASES, EQUAL, ROUNDED, assert_equal, build

if keras.backend.backend() != "tensorflow":
    pytest.skip("replicas of tf.distribute", allow_module_level=True)

import tensorflow as tf

from instdisc_core import PIC, MemoryBank

TESTS = Path(__file__).parent.parent
NAMES = (
    "exact-whole", "nce-whole", "exact_z-whole", "shared_nce-whole", "int8-whole",
    "duplicates-whole",
)  # fmt: skip


def run(script, folder):
    """The folder into which a script of the tests wrote what it found."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS / "devices" / script), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one device and two replicas found."""
    return run("tensorflow_replicas.py", tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What one device and two workers found."""
    return run("tensorflow_workers.py", tmp_path_factory.mktemp("workers"))


@pytest.mark.parametrize("name", NAMES)
def test_replicas_equal_one_device(folder, name):
    tolerance = ROUNDED["tolerance"] if "int8" in name else EQUAL
    assert_equal(folder / f"two-{name}.npz", folder / f"one-{name}.npz", tolerance)
    assert np.load(folder / f"two-{name}.npz")["replicas"] == 0, "the replicas' copies differ"


def test_a_loop_of_replicas_equals_one_device(folder):
    assert_equal(folder / "two-loop.npz", folder / "one-loop.npz")


@pytest.mark.parametrize("worker", [0, 1])
def test_two_workers_equal_one_device(workers, worker):
    assert_equal(workers / f"exact-{worker}.npz", workers / "exact.npz")


@pytest.mark.parametrize("worker", [0, 1])
def test_two_workers_of_which_one_was_killed_continue(workers, worker):
    assert_equal(workers / f"continued-{worker}.npz", workers / "continued.npz")


def test_a_checkpoint_of_two_workers_continues_on_one_device(workers):
    assert_equal(workers / "loaded.npz", workers / "continued.npz")


@pytest.mark.parametrize("worker", [0, 1])
def test_workers_that_differ_are_found(workers, worker):
    found = json.loads((workers / f"mistakes-{worker}.json").read_text())
    assert "on rank 1 seed 1. Expected 0, as on rank 0" in found["seed"]
    assert "memory_bank/rows of rank 1, which is not that of rank 0" in found["own update"]


def test_a_training_of_replicas_that_was_stopped_ends_as_one_that_was_not(folder):
    ends = np.load(folder / "resumed.npz")
    names = {name.removesuffix("-0") for name in ends if name.endswith("-0")}
    assert "rows" in names
    for name in names:
        np.testing.assert_array_equal(ends[f"{name}-1"], ends[f"{name}-0"], err_msg=name)


def test_a_file_of_two_replicas_loads_on_one_device(folder):
    model = build(CASES["nce-whole"])
    model.load_weights(folder / "replicas.weights.h5")
    rows = model.memory_bank.bank_ops.dump(model.memory_bank.rows)[0]
    np.testing.assert_array_equal(rows, np.load(folder / "resumed.npz")["rows-1"])


class Replicas:
    """Stands in for a strategy of two replicas, which one device cannot have."""

    num_replicas_in_sync = 2
    cluster_resolver = None


def test_what_replicas_cannot_train_is_an_error(monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", Replicas)
    with pytest.raises(ValueError, match="Expected MirroredStrategy"):
        MemoryBank(10, 4)
    monkeypatch.setattr("instdisc_tensorflow.communicator.STRATEGIES", Replicas)
    with pytest.raises(ValueError, match="sharded=True with replicas"):
        MemoryBank(10, 4, sharded=True)
    with pytest.raises(ValueError, match="PIC on 2 ranks"):
        PIC(keras.layers.Flatten(), 10, 4)
