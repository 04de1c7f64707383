"""Killed processes end as others; damaged files are rejected by name; and the judges can fail."""

import json
import os
import re
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from instdisc_core.checkpoints import Checkpoints

if not Path("/proc/self/statm").exists():
    pytest.skip("open files and memory are read from Linux's /proc", allow_module_level=True)

sys.path.append(str(Path(__file__).parent.parent))  # last: what is tested is what is installed

from benchmarks.faults import cost, files, kills, loaders, reader, worker
from benchmarks.faults.judge import judge
from benchmarks.faults.mutations import MUTATIONS, mutated
from benchmarks.faults.points import Fault, Points

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# Whether steps are compiled does not matter here. JAX starts sooner where they are: otherwise it
# compiles each of their operations.
COMPILED = keras.backend.backend() == "jax"
MODE = "small" if COMPILED else "eager"


# -- kills


def finished(folder):
    """Train in this process until the end, and what that leaves behind."""
    keras.backend.clear_session()  # or names count on, and differ
    folder.mkdir(exist_ok=True)
    points = Points(folder)
    variables = worker.MODES[MODE](folder, points)
    return kills.left(folder, kills.Ended(0, {"variables": variables}, ""))


def test_a_process_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch):
    """Inside a save, in the middle of a file; and in the middle of an epoch, without power."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    faults = [Fault("cut", "after mkdir new checkpoint", 2, 30_000), Fault("power", "step", 8)]
    if keras.backend.backend() != "torch":  # what is found in an epoch is the same
        faults = faults[:1]
    folders = [tmp_path / fault.action for fault in faults]
    trainings = [kills.Training(MODE, *job) for job in zip(folders, faults, strict=True)]
    expected = finished(tmp_path / "whole")
    for training in trainings:
        ended = training.end()
        assert ended.killed, ended.reason
    cut, *power = ([p.name for p in (f / "checkpoints").iterdir()] for f in folders)
    assert any(name.startswith(".part-") for name in cut)
    assert all("epoch-00001-step-0000002" in names for names in power)
    for folder in folders:
        assert kills.differences(finished(folder), expected) == []


@pytest.mark.framework_independent
def test_a_difference_is_seen(tmp_path):
    one = {"variables": {"a": "1", "b": "2"}, "contents": {"log.csv": b"1"}, "newest": ("x", 1)}
    one |= {"unfinished": []}
    other = {**one, "variables": {"a": "1", "b": "3"}, "contents": {}, "unfinished": [".part-1"]}
    assert kills.differences(one, one) == []
    assert kills.differences(one, other) == ["b", "log.csv", "unfinished"]


class Runs:
    """Stands in for processes: the third start ends, whatever its fault, and the last one too."""

    def __init__(self, variables):
        self.variables, self.started = variables, []

    def __call__(self, mode, folder, fault=None):
        self.started.append((folder.name, fault and fault.point))
        if fault is None or len(self.started) == 3:
            return kills.Ended(0, {"variables": self.variables}, "")
        return kills.Ended(-9, None, "")


@pytest.mark.parametrize(("variables", "differences"), [({"a": 1}, []), ({"a": 2}, ["a"])])
@pytest.mark.framework_independent
def test_a_chain_meets_every_fault_and_compares_every_run(
    tmp_path, monkeypatch, variables, differences
):
    runs = Runs(variables)
    monkeypatch.setattr(kills, "run", runs)
    monkeypatch.setattr(kills, "left", lambda folder, ended: {**expected, **ended.printed})
    expected = {"variables": {"a": 1}, "contents": {}, "newest": None, "unfinished": []}
    faults = [(name, Fault("kill", name)) for name in "xyz"]
    found = kills.chain("small", tmp_path, faults, expected)
    assert runs.started == [("1", "x"), ("1", "y"), ("1", "z"), ("2", "z"), ("2", None)]
    assert [kill["kind"] for kill in found] == ["x", "y", "z"]
    assert [kill["differences"] for kill in found] == [differences] * 3


@pytest.mark.framework_independent
def test_a_fault_that_never_comes_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "run", lambda *args: kills.Ended(1, None, "ImportError: x"))
    with pytest.raises(RuntimeError, match=r"kill:z:1:0 was never met: exit status 1: .*ImportErr"):
        kills.chain("small", tmp_path, [("z", Fault("kill", "z"))], {})


@pytest.mark.framework_independent
def test_a_fault_is_text_and_back():
    plan = [*kills.SMALL.values(), *kills.RECIPE.values(), kills.FULL_SMALL, kills.FULL_RECIPE]
    for text in (text for part in plan for text in part):
        assert str(Fault.parse(text)) == text
    with pytest.raises(ValueError, match="Expected an action"):
        Fault.parse("bang:step:1:0")


@pytest.mark.on_one_backend
def test_a_training_that_is_stopped_in_an_epoch_continues_there(tmp_path):
    """As ``TerminateOnNaN`` stops it: the epoch is not complete, and no checkpoint says so."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = self.model.optimizer.iterations == 8

    expected = finished(tmp_path / "whole")["variables"]
    source = worker.images(20, 8)
    for save_freq, name in (("epoch", "epoch-00001-step-0000000"), (2, "epoch-00001-step-0000003")):
        keras.backend.clear_session()
        folder = tmp_path / str(save_freq)
        for callbacks in ([Stop()], []):
            model = worker.build(compiled=COMPILED)
            saver = Checkpoints(folder, save_freq)
            batches = source.batches(worker.BATCH_SIZE, seed=5)
            model.fit(batches, epochs=worker.EPOCHS, callbacks=[*callbacks, saver], verbose=0)
            if callbacks:
                assert max(path.name for path in folder.glob("epoch*")) == name
        assert list(worker.digests(model).values()) == list(expected.values())


# -- damaged files


@pytest.mark.parametrize("kind", MUTATIONS)
@pytest.mark.framework_independent
def test_a_mutation_changes_a_file_and_is_the_same_again(kind):
    data = bytes(range(256)) * 9
    seeds = [seed for seed in map(str, range(200)) if mutated(data, seed)[0] == kind]
    assert len(seeds) > 5
    for seed in seeds:
        assert mutated(data, seed)[1] != data
        assert mutated(data, seed) == mutated(data, seed)
    assert len({mutated(data, seed) for seed in seeds}) > 5


@pytest.mark.parametrize(
    ("key", "count"),
    [
        pytest.param("weights", 8, marks=pytest.mark.on_one_backend),
        ("keras", 4),
        pytest.param("keras weights", 4, marks=pytest.mark.on_one_backend),
        ("checkpoints", 8),
        pytest.param("manifest", 8, marks=pytest.mark.framework_independent),
        pytest.param("manifest array", 8, marks=pytest.mark.framework_independent),
        pytest.param("recipe", 8, marks=pytest.mark.framework_independent),
        pytest.param("log", 3, marks=pytest.mark.on_one_backend),
        pytest.param("folder", 8, marks=pytest.mark.framework_independent),
        pytest.param("TIFF", 8, marks=pytest.mark.framework_independent),
    ],
)
def test_no_damaged_file_is_loaded_as_something_else(tmp_path, key, count):
    (home := tmp_path / "home").mkdir()
    loader = loaders.LOADERS[key][1](home)
    if keras.backend.backend() != "torch":  # the files are the same
        count = min(count, 3)
    for i in range(count):
        (folder := tmp_path / str(i)).mkdir()
        mutation, name = reader.damaged(loader, folder, f"{key}:{i}")
        verdict = judge(loader, folder, Path(name).name)
        assert verdict.kind in ("rejected", "equal", "decoded"), (i, mutation, verdict)
        assert not verdict.executions


class Fake:
    """A loader that does as it is told."""

    name, files, targets, content = "fake", {"x": b"12"}, ("x",), b"12"
    may_differ = False

    def __init__(self, load, names_files=True):
        self.load, self.names_files = load, names_files


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("load", "kind"),
    [
        (lambda folder: b"12", "equal"),
        (lambda folder: (folder / "x").read_bytes(), "wrong"),
        (lambda folder: fail(ValueError("the file x is cut")), "rejected"),
        (lambda folder: fail(ValueError(f"in {folder} something is cut")), "rejected"),
        (lambda folder: fail(ValueError("the file y is cut")), "crash"),
        (lambda folder: fail(ValueError("x")), "crash"),
        (lambda folder: fail(KeyError("x")), "crash"),
        (lambda folder: fail(TypeError("'NoneType' object is not x")), "crash"),
        (lambda folder: np.ones(2**30), "crash"),
    ],
)
@pytest.mark.framework_independent
def test_every_verdict_can_be_reached(tmp_path, load, kind):
    (tmp_path / "x").write_bytes(b"13")
    assert judge(Fake(load), tmp_path, "x").kind == kind


@pytest.mark.framework_independent
def test_what_runs_while_a_file_is_read_is_seen(tmp_path):
    ran = judge(Fake(lambda folder: os.system("true")), tmp_path, "x").executions
    assert any(event.startswith("os.system") for event in ran)
    ran = judge(Fake(lambda folder: exec("1")), tmp_path, "x").executions
    assert any(event.startswith("exec") for event in ran)
    assert not judge(Fake(lambda folder: json.loads("1")), tmp_path, "x").executions


READER = """
import json, os, signal, sys, time
for job in sys.argv[1:]:
    if job == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "hang":
        time.sleep(60)
    if job == "bug":
        raise SystemExit("a bug of the benchmark")
    one = {"job": job, "mutation": "cut", "loader": "all", "kind": "rejected", "executions": []}
    print(json.dumps(one), flush=True)
"""


@pytest.mark.framework_independent
def test_a_file_that_ends_or_hangs_its_reader_is_a_crash():
    command = (sys.executable, "-c", READER)
    found = files.verdicts(["a", "segfault", "b", "hang", "c"], command, longest=3)
    kinds = [(one["job"], one["kind"]) for one in found]
    expected = ["rejected", "crash"] * 2 + ["rejected"]
    assert kinds == list(zip(["a", "segfault", "b", "hang", "c"], expected, strict=True))
    assert "SIGSEGV" in found[1]["detail"]
    assert "hung" in found[3]["detail"]
    summary = files.summary(found)
    assert summary["by_loader"]["all"] == {"rejected": 3}
    assert [one["job"] for one in summary["faults"]] == ["segfault", "hang"]
    with pytest.raises(RuntimeError, match="a bug of the benchmark"):
        files.verdicts(["bug"], command)


@pytest.mark.framework_independent
def test_there_are_enough_files():
    assert len(files.jobs()) >= 2000
    assert {job.partition(":")[0] for job in files.jobs(0.01)} >= {
        *loaders.LOADERS,
        *reader.ATTACKS,
    }


@pytest.mark.parametrize("checks", [True, False])
def test_a_keras_file_with_a_damaged_weight_is_rejected(tmp_path, monkeypatch, checks):
    """Where the checksum of the weights does not hold, Keras reads them again, piece by piece.

    From Python 3.12 on, zipfile checks nothing after a seek, and wrong weights would be loaded.
    """
    path, model = tmp_path / "model.keras", worker.build()
    model.build((None, 8, 8, 3))
    model.optimizer.build(model.trainable_variables)
    model.save(path)
    data = path.read_bytes()
    kernel = keras.ops.convert_to_numpy(model.projector.kernel).tobytes()
    assert data.count(kernel) == 1
    path.write_bytes(data.replace(kernel, kernel[:-1] + bytes([kernel[-1] ^ 1])))
    seek = zipfile.ZipExtFile.seek

    def unchecked(self, *args):
        self._expected_crc = None
        return seek(self, *args)

    if not checks:
        monkeypatch.setattr(zipfile.ZipExtFile, "seek", unchecked)
    with pytest.raises((ValueError, zipfile.BadZipFile), match=r"model\.weights\.h5"):
        keras.saving.load_model(path)
    for skip_mismatch in (False, True):
        with pytest.raises(ValueError, match=r"model\.keras, whose part model\.weights\.h5 is dam"):
            model.load_weights(path, skip_mismatch=skip_mismatch)
    path.write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"model\.keras, which is damaged"):
        model.load_weights(path)


# -- cost and documents


@pytest.mark.on_one_backend
def test_the_cost_of_a_checkpoint_is_a_share_of_a_hundred_steps(tmp_path, monkeypatch):
    class Tiny:
        image_size, batch_size = 8, 4

        def build(self, n, steps, seed):
            return worker.build(n)

    monkeypatch.setattr(cost.recipes, "get", lambda name: Tiny())
    monkeypatch.chdir(tmp_path)
    found = cost.measure({"tiny": 24}, count=3)["tiny"]
    assert found["share"] == found["save_seconds"] / (100 * found["step_seconds"]) > 0
    assert found["bytes"] > 10_000
    assert not list(tmp_path.iterdir())


@pytest.mark.framework_independent
def test_every_test_that_a_promise_names_exists():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        (path,) = (ROOT / "tests").rglob(file)
        assert f"\ndef {test}(" in path.read_text(), f"{file}::{test}"
