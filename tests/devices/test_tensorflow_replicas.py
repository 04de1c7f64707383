"""Two replicas of ``tf.distribute.MirroredStrategy`` end as one device does."""

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
NAMES = ("exact-whole", "nce-whole", "shared_nce-whole", "int8-whole", "duplicates-whole")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one device and two replicas found."""
    folder = tmp_path_factory.mktemp("replicas")
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(TESTS / "devices" / "tensorflow_replicas.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_replicas_equal_one_device(folder, name):
    tolerance = ROUNDED["tolerance"] if "int8" in name else EQUAL
    assert_equal(folder / f"two-{name}.npz", folder / f"one-{name}.npz", tolerance)
    assert np.load(folder / f"two-{name}.npz")["replicas"] == 0, "the replicas' copies differ"


def test_a_loop_of_replicas_equals_one_device(folder):
    assert_equal(folder / "two-loop.npz", folder / "one-loop.npz")


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
