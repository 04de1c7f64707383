"""A run that is killed ends as one that is not; what is damaged is named, and nothing is lost."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from models import small_model
from trainings import (
    BATCH,
    EPOCHS,
    IMAGES,
    N,
    Stop,
    as_arrays,
    as_source,
    assert_equal,
    batches,
    build,
    run,
    state,
)

from instdisc_core.checkpoints import Checkpoints, FolderLock, check_seal, seal
from instdisc_core.checkpoints import folder as checkpoint_folder
from instdisc_core.checkpoints.folder import CheckpointFolder
from instdisc_core.data import ImageArray
from instdisc_core.files import replacing

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def interrupted(train, folder, stop, **kwargs):
    with pytest.raises(KeyboardInterrupt):
        run(train, folder, stop, **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, for each way of giving the images."""
    folders = {train: tmp_path_factory.mktemp("whole") for train in (as_source, as_arrays)}
    return {train: (run(train, folder), folder) for train, folder in folders.items()}


def ends_equal(folder, expected, expected_folder, train, stop, save_freq, **kwargs):
    """Stop a run again and again, and compare what it comes to."""
    runs = 0
    while len(read(folder)) < EPOCHS:
        runs += 1
        try:
            model = run(train, folder, stop, save_freq, **kwargs)
        except KeyboardInterrupt:
            continue
    assert runs > 1
    assert_equal(model, expected)
    assert (folder / "log.csv").read_bytes() == (expected_folder / "log.csv").read_bytes()


@pytest.mark.parametrize("train", [as_source, as_arrays])
@pytest.mark.parametrize(("save_freq", "stop"), [(1, 2), (2, 4), ("epoch", 5)])
def test_a_run_stopped_again_and_again_ends_equal(tmp_path, whole, train, save_freq, stop):
    ends_equal(tmp_path, *whole[train], train, stop, save_freq)


def test_a_compiled_run_that_is_stopped_ends_equal(tmp_path_factory):
    first, second = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("stopped")
    expected = run(as_source, first, compiled=True)
    ends_equal(second, expected, first, as_source, 5, 1, compiled=True)


def read(folder):
    log = folder / "log.csv"
    return log.read_text().splitlines()[1:] if log.exists() else []


def test_the_last_ones_stay(tmp_path):
    interrupted(as_arrays, tmp_path, stop=6)
    names = sorted(p.name for p in (tmp_path / "saved").glob("epoch*"))
    assert names == [f"epoch-0000{e}-step-000000{s}" for e, s in ((1, 0), (1, 1), (1, 2))]


def test_what_an_epoch_left_out_before_it_was_killed_is_reported_after(tmp_path):
    spoiled = IMAGES.astype("float32")
    spoiled[3, 0, 0, 0] = np.nan

    def start(stop):
        model = build()
        model.non_finite = "skip"
        callbacks = [Checkpoints(tmp_path / "saved", 1), Stop(stop)]
        model.fit(spoiled, np.arange(N), BATCH, 1, 0, callbacks=callbacks, shuffle=False)

    with pytest.raises(KeyboardInterrupt):
        start(3)  # image 3 is in the first batch
    with pytest.warns(UserWarning, match="1 images in epoch 1 with pixels that are not finite"):
        start(0)


def test_a_run_that_is_complete_runs_no_further(tmp_path, whole):
    run(as_source, tmp_path)
    again = run(as_source, tmp_path, stop=1)
    assert_equal(again, whole[as_source][0])


def test_a_later_fit_of_the_model_starts_at_the_first_epoch(tmp_path):
    model = run(as_source, tmp_path)
    assert model.fit(batches(), verbose=0).epoch == [0]


# -- damage


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    interrupted(as_source, folder, stop=5)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The folder of a run that was interrupted in its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def newest(folder):
    return max((folder / "saved").glob("epoch*"))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def claim_epoch_99(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "epoch": 99}))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.weights.h5", cut),
        ("model.weights.h5", flip),
        ("state.npz", cut),
        ("state.npz", flip),
        ("checkpoint.json", cut),
        ("checkpoint.json", flip),
        ("checkpoint.json", claim_epoch_99),
        ("checkpoint.json", os.unlink),
        ("checkpoint.json", lambda path: path.write_text("[]")),
        ("checkpoint.json", lambda path: path.write_text("[" * 10_000)),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(stopped, file, damage):
    *_, before, last = sorted((stopped / "saved").glob("epoch*"))
    damage(last / file)
    with pytest.warns(UserWarning, match=rf"Damaged checkpoints .*{last.name} \("):
        path, about = CheckpointFolder(stopped / "saved", 3).newest()
    assert path == before
    assert before.name == "epoch-{epoch:05d}-step-{step:07d}".format(**about)


def test_from_the_one_before_a_run_ends_equal(stopped, whole):
    flip(newest(stopped) / "model.weights.h5")
    with pytest.warns(UserWarning, match="Damaged checkpoints"):
        model = run(as_source, stopped)
    assert_equal(model, whole[as_source][0])


@pytest.mark.parametrize("damage", [os.unlink, flip, cut])
def test_a_log_is_restored_with_the_checkpoint(stopped, whole, damage):
    damage(stopped / "log.csv")
    run(as_source, stopped)
    assert (stopped / "log.csv").read_bytes() == (whole[as_source][1] / "log.csv").read_bytes()


def test_parts_of_two_checkpoints_are_not_one(stopped):
    older, newer = sorted((stopped / "saved").glob("epoch*"))[-2:]
    (newer / "model.weights.h5").write_bytes((older / "model.weights.h5").read_bytes())
    with pytest.warns(UserWarning, match="weights of another checkpoint"):
        CheckpointFolder(stopped / "saved", 3).newest()


def test_where_all_are_damaged_nothing_starts_from_the_beginning(stopped):
    for path in (stopped / "saved").glob("epoch*"):
        flip(path / "state.npz")
    with pytest.raises(ValueError, match=r"every checkpoint is damaged: .*Restore one"):
        run(as_source, stopped)


@pytest.mark.parametrize("where", ["flush", "rename", "rmtree"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_what_stops_while_saving_leaves_the_one_before(stopped, whole, monkeypatch, where, error):
    before = {p.name for p in (stopped / "saved").glob("epoch*")}

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        owner = {"rename": os, "rmtree": checkpoint_folder.shutil}.get(where, checkpoint_folder)
        patch.setattr(owner, where, fail)
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            run(as_source, stopped)
    after = {p.name for p in (stopped / "saved").glob("epoch*")}
    assert before <= after if where in ("flush", "rename") else before & after
    assert_equal(run(as_source, stopped), whole[as_source][0])
    assert not list((stopped / "saved").glob(".part*"))


# -- what does not fit


@pytest.mark.parametrize(
    ("change", "train", "what"),
    [
        ({"optimizer": keras.optimizers.SGD(0.01, momentum=0.9)}, as_source, "optimizer"),
        ({}, as_arrays, "data"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES).batches(5, 5), epochs=3, **k), "order"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES).batches(BATCH, 6), epochs=3, **k), "order"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES[::-1]).batches(4, 5), **k), "data"),
    ],
)
def test_another_run_s_checkpoint_is_rejected_and_the_model_stays(stopped, change, train, what):
    model = build(**change)
    model.build((None, 2, 2, 3))
    before = [numpy(v) for v in model.variables]
    with pytest.raises(ValueError, match=rf"saved.*whose {what} is .*Give fit the {what}"):
        train(model, callbacks=[Checkpoints(stopped / "saved")])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    with FolderLock(stopped / "saved"):
        pass  # it was given back


def test_steps_that_the_optimizer_did_not_make_are_seen(tmp_path, monkeypatch):
    """A checkpoint that is whole, but whose weights are those of another step."""
    model = build()
    saver = Checkpoints(tmp_path / "saved", 1)
    save = Checkpoints._save
    monkeypatch.setattr(
        Checkpoints, "_save", lambda self, position: save(self, position._replace(step=2))
    )
    with pytest.raises(KeyboardInterrupt):
        as_source(model, callbacks=[saver, Stop(2)])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"optimizer made 1 steps\. Expected 2"):
        as_source(build(), callbacks=[Checkpoints(tmp_path / "saved", 1)])


def test_data_in_an_order_of_their_own_continue_after_whole_epochs(tmp_path):
    def stream():
        for _ in range(EPOCHS):
            for start in range(0, N, BATCH):
                yield IMAGES[start : start + BATCH], np.arange(start, min(start + BATCH, N))

    with pytest.raises(ValueError, match=r"save_freq=1 and data whose order is not known"):
        build().fit(stream(), callbacks=[Checkpoints(tmp_path, 1)], verbose=0, shuffle=False)
    settings = {"steps_per_epoch": 3, "verbose": 0, "shuffle": False}
    for epochs in (1, 2):
        model = build()
        model.build((None, 2, 2, 3))
        history = model.fit(stream(), epochs=epochs, callbacks=[Checkpoints(tmp_path)], **settings)
        assert history.epoch == [epochs - 1]


@pytest.mark.parametrize(
    ("arguments", "message"), [((0,), "save_freq=0"), (("step",), "save_freq='step'")]
)
def test_how_often_is_checked(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path, *arguments)
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="2 Checkpoints"):
        as_source(build(), callbacks=[Checkpoints(tmp_path), Checkpoints(tmp_path)])


def test_epochs_are_whole(tmp_path):
    with pytest.raises(ValueError, match="steps_per_epoch=2 with ImageBatches"):
        build().fit(batches(), steps_per_epoch=2, verbose=0)


def test_keras_s_own_backup_finds_a_model_that_is_built(tmp_path):
    model = build()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    as_source(model, callbacks=[backup])
    again = build()
    again.fit(IMAGES, np.arange(N), epochs=EPOCHS, callbacks=[backup], verbose=0)
    np.testing.assert_array_equal(numpy(again.memory_bank.rows), numpy(model.memory_bank.rows))


# -- the lock


HOLD = """
import sys, time
from instdisc_core.checkpoints import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a lock knows no backend")
def test_a_folder_in_use_names_the_process_and_is_free_when_that_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=rf"which process {holder.pid} on .* is using"):
            as_source(build(), callbacks=[Checkpoints(tmp_path)])
    finally:
        holder.kill()
        holder.communicate()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / "process.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "process.json").exists()


# -- files


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(1, 255))
def test_every_changed_byte_and_every_cut_breaks_a_seal(tmp_path_factory, data, place, change):
    path = tmp_path_factory.mktemp("seal") / "file"
    path.write_bytes(data)
    digest = seal(path)
    assert check_seal(path) == digest
    sealed = path.read_bytes()
    place %= len(sealed)
    changed = bytearray(sealed)
    changed[place] ^= change
    for damaged in (bytes(changed), sealed[:place], sealed + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            check_seal(path)


def test_weights_without_a_digest_and_with_another_change_nothing(tmp_path):
    model, other = build(), build()
    as_source(model)
    other.build((None, 2, 2, 3))
    before = [numpy(v) for v in other.variables]
    path = tmp_path / "m.weights.h5"
    keras.saving.save_weights(model, path)
    for match, damage in (("does not end with a digest", lambda: seal(path)), ("not those", None)):
        if damage is None:
            flip(path)
        with pytest.raises(ValueError, match=match):
            other.load_weights(path)
        if damage is not None:
            damage()
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.mark.parametrize("skip_mismatch", [False, True])
def test_rows_of_others_bring_their_manifest_or_none(tmp_path, skip_mismatch):
    """A bank never ends with rows of one data set and the manifest of another."""
    known, bare = build(), build()
    as_source(known)
    as_arrays(bare)
    bare.save_weights(tmp_path / "bare.weights.h5")
    known.load_weights(tmp_path / "bare.weights.h5", skip_mismatch=skip_mismatch)
    np.testing.assert_array_equal(numpy(known.memory_bank.rows), numpy(bare.memory_bank.rows))
    assert known.manifest is None


def test_weights_of_a_bank_of_another_size_leave_everything(tmp_path):
    model, larger = build(), build(n=N + 1)
    as_source(model)
    larger.build((None, 2, 2, 3))
    larger.optimizer.build(larger.trainable_variables)
    larger.manifest = ImageArray(np.zeros((N + 1, 2, 2, 3), "uint8")).manifest
    larger.save_weights(tmp_path / "larger.weights.h5")
    manifest, before, rows = model.manifest, state(model), numpy(model.memory_bank.rows)
    with pytest.raises(ValueError, match=r"memory_bank has the shapes .*\(11, 4\)"):
        model.load_weights(tmp_path / "larger.weights.h5")
    for ours, value in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(ours, value)
    with pytest.warns(UserWarning, match="memory_bank has the shapes"):
        model.load_weights(tmp_path / "larger.weights.h5", skip_mismatch=True)
    np.testing.assert_array_equal(numpy(model.memory_bank.rows), rows)
    assert model.manifest == manifest


def test_weights_that_fail_after_the_rows_leave_the_manifest(tmp_path):
    """Keras loads part by part: the bank, and its manifest, before the projector that fails."""
    model, other = (
        small_model(projector=keras.layers.Dense(4, use_bias=bias)) for bias in (False, True)
    )
    for each in (model, other):
        each.build((None, 2, 2, 3))
    model.manifest, other.manifest = (ImageArray(i).manifest for i in (IMAGES, 255 - IMAGES))
    other.save_weights(tmp_path / "other.weights.h5")
    manifest, rows = model.manifest, numpy(model.memory_bank.rows)
    with pytest.raises(ValueError, match="expected 1 variables"):
        model.load_weights(tmp_path / "other.weights.h5")
    assert model.manifest is manifest
    np.testing.assert_array_equal(numpy(model.memory_bank.rows), rows)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda bank: bank.rows.assign(2 * bank.rows), "10 of 10 rows of memory_bank are not of"),
        (lambda bank: bank.rows.assign(np.full((N, 4), np.nan)), "10 of 10 rows of memory_bank"),
        (lambda bank: setattr(bank, "manifest", bank.manifest.subset([0, 1])), "manifest of 2"),
    ],
)
def test_rows_that_no_bank_has_are_rejected(tmp_path, spoil, match):
    model, other = build(), build()
    as_source(model)
    other.build((None, 2, 2, 3))
    spoil(model.memory_bank)
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    before = [numpy(v) for v in other.variables]
    with pytest.raises(ValueError, match=match):
        other.load_weights(tmp_path / "m.weights.h5")
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    assert other.manifest is None
    with pytest.raises(ValueError, match=match):
        keras.saving.load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, name):
    model = build()
    as_source(model)
    write = model.save if name == "model.keras" else model.save_weights
    write(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("instdisc_core.files.flush", full)
    as_source(model)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_one_file_of_weights(tmp_path):
    model = build()
    model.build((None, 2, 2, 3))
    with pytest.raises(ValueError, match="max_shard_size=1"):
        model.save_weights(tmp_path / "m.weights.json", max_shard_size=1)


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.suffix == ".txt"
    assert path.read_text() == "new"
    context = replacing(path)
    context.__enter__().write_text("newer")
    assert not context.__exit__(KeyError, KeyError(), None)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
