"""Several devices of JAX, in one process and in two, end as one device does."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from devices.trainings import CASES, EQUAL, ROUNDED, assert_equal, build

from instdisc_core import MemoryBank

if keras.backend.backend() != "jax":
    pytest.skip("devices of keras.distribution", allow_module_level=True)

TESTS = Path(__file__).parent.parent
DIVIDED = ("exact-whole", "nce", "shared_nce", "info_nce", "int8", "duplicates")
DIVIDED = [name if "-" in name else f"{name}-sharded" for name in DIVIDED]


def start(*arguments):
    """A process of the script ``jax_devices.py``."""
    command = [sys.executable, str(TESTS / "devices" / "jax_devices.py"), *map(str, arguments)]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def require_success(processes, seconds):
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(outputs)[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What one device and four devices of one process found."""
    folder = tmp_path_factory.mktemp("devices")
    require_success([start(folder)], 600)
    return folder


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    with tempfile.TemporaryDirectory() as short:  # a file, of which nobody else is given the name
        address = f"unix:{short}/coordinator"
        require_success([start(folder, address, number) for number in (0, 1)], 600)
    return folder


def test_a_whole_bank_equals_one_device(folder):
    assert_equal(folder / "whole-exact-whole.npz", folder / "one-exact-whole.npz")


@pytest.mark.parametrize("name", DIVIDED)
def test_a_divided_bank_equals_one_device(folder, name):
    tolerance = ROUNDED["tolerance"] if "int8" in name else EQUAL
    assert_equal(folder / f"divided-{name}.npz", folder / f"one-{name}.npz", tolerance)


@pytest.mark.parametrize("method", ["nnclr", "pic"])
def test_other_methods_equal_one_device(folder, method):
    assert_equal(folder / f"divided-{method}.npz", folder / f"one-{method}.npz", 1e-4)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("how", ["whole", "divided"])
def test_two_processes_equal_one_device(folder, two_processes, how, number):
    assert_equal(two_processes / f"{how}-{number}.npz", folder / "one-exact-whole.npz")


@pytest.mark.parametrize("file", ["whole-resumed", "divided-resumed"])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(folder, file):
    assert_resumed(folder / f"{file}.npz")


@pytest.mark.parametrize("how", ["whole", "divided"])
def test_two_processes_resume(two_processes, how):
    for number in (0, 1):
        assert_resumed(two_processes / f"{how}-resumed-{number}.npz")


def assert_resumed(file):
    ends = np.load(file)
    names = {name.removesuffix("-0") for name in ends if name.endswith("-0")}
    assert "rows" in names
    for name in names:
        np.testing.assert_array_equal(ends[f"{name}-1"], ends[f"{name}-0"], err_msg=name)


@pytest.mark.parametrize("devices", [2, 1])
def test_a_file_of_four_devices_loads_on_others(folder, devices):
    loaded = np.load(folder / f"loaded-{devices}.npz")
    saved = np.load(folder / "divided-int8-sharded.npz")
    for what in ("rows", "weights"):
        np.testing.assert_array_equal(loaded[what], saved[what])


def test_a_file_of_four_devices_is_that_of_one(folder):
    """It loads here, on one device, and so on any framework."""
    model = build(replace(CASES["int8-sharded"], sharded=False))
    model.load_weights(folder / "int8-sharded.weights.h5")
    values, scale = model.memory_bank.bank_ops.dump(model.memory_bank.rows)
    assert values.shape == (model.memory_bank.num_instances, model.embedding_dim)
    np.testing.assert_array_equal(
        values.astype("float64") * scale, np.load(folder / "divided-int8-sharded.npz")["rows"]
    )


@pytest.mark.parametrize("axes", [1, 2])
def test_a_device_without_rows(folder, axes):
    found = np.load(folder / "few.npz")
    for what in ("log_z", "row", "k", "scores"):
        np.testing.assert_allclose(
            found[f"divided-{axes}-{what}"], found[f"one-{axes}-{what}"], 0, 1e-5, err_msg=what
        )


def test_a_distribution_that_divides_no_variable_is_an_error_for_a_sharded_bank():
    devices = keras.distribution.list_devices()[:1]
    with keras.distribution.DataParallel(devices=devices).scope():
        MemoryBank(10, 4)
        with pytest.raises(ValueError, match=r"sharded=True with DataParallel.*layout_map"):
            MemoryBank(10, 4, sharded=True)


# About 3.5 kB are gradients. What each primitive adds without `shard_map` is above these limits:
# 37 kB with the blocks of 1024 rows by which `attend` reads a bank, 11 kB, and 7 kB.
@pytest.mark.parametrize(
    ("name", "limit"), [("exact-whole", 8192), ("nce-whole", 8192), ("shared_nce-whole", 6144)]
)
def test_what_devices_exchange_does_not_depend_on_the_number_of_images(folder, name, limit):
    few, many = json.loads((folder / "collectives.json").read_text())[name]
    assert few == many
    assert 0 < sum(few) < limit
