"""Trainings that stop early, callbacks that remember, and folders with what others left."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import small_model
from trainings import (
    BATCH,
    EPOCHS,
    IMAGES,
    STEPS,
    N,
    Stop,
    as_arrays,
    as_source,
    assert_equal,
    batches,
)

from instdisc_core.callbacks import BankHealth, LogFile
from instdisc_core.checkpoints import Checkpoints, FolderLock
from instdisc_core.checkpoints import folder as checkpoint_folder
from instdisc_core.data.batches import ArrayBatches
from instdisc_core.files import replacing

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def build(optimizer=None):
    """A small model: where a training stops does not depend on what it trains."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten()])
    return small_model(encoder, optimizer=optimizer, compiled=False)


def names(folder):
    return sorted(path.name for path in folder.glob("epoch*"))


class Ask(Stop):
    """Asks ``fit`` to stop instead."""

    def stop(self):
        self.model.stop_training = True


class Count(keras.callbacks.Callback):
    """Counts steps, over all starts."""

    def __init__(self):
        super().__init__()
        self.steps, self.ended_with = 0, None

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_train_end(self, logs=None):
        self.ended_with = logs

    def get_state(self):
        return {"steps": np.array(self.steps)}

    def set_state(self, state):
        self.steps = int(state["steps"])


# -- in the middle of an epoch


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_a_stopped_epoch_continues_with_its_metrics_and_what_callbacks_know(tmp_path, stop):
    """A callback stops the second epoch, after which Keras evaluates and others see it end."""

    def train(folder, steps):
        model = build()
        health = BankHealth(IMAGES, sample=6, k=2)
        saver = Checkpoints(folder / "saved", 100)
        log = LogFile(folder / "log.csv")
        known = (IMAGES[:4], np.arange(4))
        as_source(model, callbacks=[health, log, Ask(steps), saver], validation_data=known)
        return model

    (whole := tmp_path / "whole").mkdir()
    (folder := tmp_path / "stopped").mkdir()
    expected = train(whole, 0)
    train(folder, stop)
    position = "epoch-{:05d}-step-{:07d}".format(*divmod(stop, STEPS))
    assert names(folder / "saved")[-1] == position
    assert_equal(train(folder, 0), expected)
    assert (folder / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()


def test_what_stops_the_rest_of_an_epoch_stops_the_training(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Checkpoints(tmp_path, 1), Stop(STEPS + 2)])
    model = build()
    as_source(model, callbacks=[Checkpoints(tmp_path, 1), Ask(1)])
    assert int(numpy(model.optimizer.iterations)) == STEPS + 2


def test_a_stream_that_is_stopped_in_an_epoch_counts_whole_epochs_only(tmp_path):
    def stream():
        while True:
            for start in range(0, N, BATCH):
                yield IMAGES[start : start + BATCH], np.arange(start, min(start + BATCH, N))

    model = build()
    model.build((None, 2, 2, 3))
    settings = {"epochs": 3, "steps_per_epoch": STEPS, "shuffle": False, "verbose": 0}
    model.fit(stream(), callbacks=[Ask(4), Checkpoints(tmp_path)], **settings)
    assert names(tmp_path) == ["epoch-00001-step-0000000"]


def test_a_position_beyond_the_last_epoch_trains_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Checkpoints(tmp_path, 1), Stop(STEPS + 2)])
    model = build()
    history = model.fit(batches(), epochs=1, verbose=0, callbacks=[Checkpoints(tmp_path, 1)])
    assert history.epoch == []
    assert int(numpy(model.optimizer.iterations)) == STEPS + 1


def test_batches_are_whole_again_while_the_interrupt_is_still_handled(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Checkpoints(tmp_path, 1), Stop(3)])
    again = batches()
    with pytest.raises(KeyboardInterrupt) as held:
        build().fit(again, epochs=2, verbose=0, callbacks=[Checkpoints(tmp_path, 1), Stop(1)])
    assert held.tb is not None
    assert again.start == 0
    assert again.num_batches == STEPS


# -- callbacks


def test_states_stay_with_their_callbacks_when_others_are_added(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Count(), Checkpoints(tmp_path, 1), Stop(5)])
    count = Count()
    nan = keras.callbacks.TerminateOnNaN()
    as_source(build(), callbacks=[nan, count, Checkpoints(tmp_path, 1)])
    assert count.steps == EPOCHS * STEPS


def test_states_that_nobody_takes_are_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Count(), Checkpoints(tmp_path, 1), Stop(5)])
    with pytest.warns(UserWarning, match=r"not given: \['callback/Count/0'\]"):
        as_source(build(), callbacks=[Checkpoints(tmp_path, 1)])


def test_the_last_logs_reach_the_end_of_a_training_that_was_resumed_in_its_last_epoch(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build(), callbacks=[Checkpoints(tmp_path, 1), Stop(EPOCHS * STEPS - 1)])
    count = Count()
    as_source(build(), callbacks=[count, Checkpoints(tmp_path, 1)])
    assert count.ended_with["loss"] > 0


def test_a_state_that_only_a_pickle_holds_is_rejected_when_it_is_saved(tmp_path):
    class Careless(Count):
        def get_state(self):
            return {"best": None}

    with pytest.raises(ValueError, match=r"callback/Careless/0/best of dtype object"):
        as_source(build(), callbacks=[Careless(), Checkpoints(tmp_path, 1)])
    assert not names(tmp_path)


def test_a_list_of_callbacks_is_as_it_was_after_fit():
    listed = keras.callbacks.CallbackList([Count()], add_history=True, model=(model := build()))
    before = list(listed.callbacks)
    for _ in range(2):
        model.fit(batches(), verbose=0, callbacks=listed)
        assert listed.callbacks == before


def test_only_an_instance_discrimination_model_has_checkpoints(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Checkpoints in the fit of Sequential"):
        model.fit(np.ones((2, 2)), np.ones(2), verbose=0, callbacks=[Checkpoints(tmp_path)])


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_the_log_of_a_complete_run_comes_back(tmp_path, damage):
    log = tmp_path / "log.csv"
    as_source(build(), callbacks=[LogFile(log), Checkpoints(tmp_path)])
    expected = log.read_bytes()
    log.unlink() if damage == "missing" else log.write_text("x")
    as_source(build(), callbacks=[LogFile(log), Checkpoints(tmp_path)])
    assert log.read_bytes() == expected


# -- what fit takes


def test_weights_of_samples_may_be_a_list_and_a_split_is_rejected(tmp_path):
    given = {"verbose": 0, "callbacks": [Checkpoints(tmp_path)]}
    build().fit(IMAGES, list(range(N)), sample_weight=[1.0] * N, **given)
    with pytest.raises(ValueError, match=r"validation_split=0\.2 with Checkpoints"):
        build().fit(IMAGES, np.arange(N), validation_split=0.2, **given)


def test_tensors_become_arrays_and_each_epoch_has_an_order_of_its_own():
    arrays = ArrayBatches(keras.ops.convert_to_tensor(IMAGES), np.arange(N), seed=0, batch_size=N)
    orders = []
    for arrays.epoch in (0, 1, 0):
        images, order = arrays[0]
        np.testing.assert_array_equal(images, IMAGES[order])
        orders.append(order.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(N))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("scaled", [False, True])
def test_averaged_weights_are_saved_after_whole_epochs_only(tmp_path, scaled):
    optimizer = keras.optimizers.SGD(0.01, use_ema=True)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match="save_freq=1 and an optimizer with use_ema=True"):
        as_source(build(optimizer), callbacks=[Checkpoints(tmp_path, 1)])


def test_a_resumed_optimizer_may_skip_steps(tmp_path):
    """One that scales the loss counts the steps that it made, not those that it skipped."""
    for epochs in (1, 2):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
        model = build(optimizer)
        model.build((None, 2, 2, 3))
        optimizer.build(model.trainable_variables)
        history = model.fit(
            batches(), epochs=epochs, verbose=0, callbacks=[Skip(), Checkpoints(tmp_path)]
        )
        assert history.epoch == [epochs - 1]


class Skip(keras.callbacks.Callback):
    """Takes one step back, as if it had overflowed."""

    def on_epoch_end(self, epoch, logs=None):
        inner = self.model.optimizer.inner_optimizer
        inner._iterations.assign(inner._iterations - 1)


# -- the folder


def test_damaged_checkpoints_of_later_steps_never_push_out_a_whole_one(tmp_path):
    for keep in (3, 1):
        folder = tmp_path / str(keep)
        as_source(build(), callbacks=[Checkpoints(folder, 1)])
        *_, last = sorted(folder.glob("epoch*"))
        for path in sorted(folder.glob("epoch*"))[1:]:
            (path / "state.npz").write_bytes(b"x")
        with (
            pytest.warns(UserWarning, match="Damaged checkpoints"),
            pytest.raises(KeyboardInterrupt),
        ):
            as_source(build(), callbacks=[Checkpoints(folder, 1, keep), Stop(2)])
        found = checkpoint_folder.CheckpointFolder(folder, keep)
        assert found.newest()[0] == found.paths()[-1] < last
        assert len(found.paths()) <= keep


def test_an_old_checkpoint_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    """Whenever the process ends, some checkpoint is whole: even with one that is kept."""
    rename, seen = checkpoint_folder.os.rename, []

    def watched(source, target):
        seen.append(bool(names(tmp_path)))
        rename(source, target)
        seen.append(bool(names(tmp_path)))

    monkeypatch.setattr(checkpoint_folder.os, "rename", watched)
    as_source(build(), callbacks=[Checkpoints(tmp_path, 1, keep=1)])
    assert len(seen) > 4
    assert all(seen[1:]), "none before the first, and one ever after"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_everything_is_flushed_before_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    for name in ("rename", "replace"):
        function = getattr(checkpoint_folder.os, name)

        def renamed(source, target, function=function):
            function(source, target)
            events.append(("named", str(target)))

        monkeypatch.setattr(checkpoint_folder.os, name, renamed)
    flush = checkpoint_folder.os.fsync

    def flushed(descriptor):
        flush(descriptor)
        events.append(("flushed", checkpoint_folder.os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(checkpoint_folder.os, "fsync", flushed)
    (folder := tmp_path / "saved").mkdir()
    build_and_save = build()
    build_and_save.fit(batches(), verbose=0, callbacks=[Checkpoints(folder)])
    end = events.index(("named", str(folder / "epoch-00001-step-0000000")))
    before = [path.rpartition("/")[2] for kind, path in events[:end] if kind == "flushed"]
    assert {"model.weights.h5", "state.npz", "checkpoint.json"} <= set(before)
    assert before[-1].endswith("epoch-00001-step-0000000"), "the folder itself, last"
    assert events[end + 1] == ("flushed", str(folder))
    events.clear()
    with replacing(tmp_path / "file") as part:
        part.write_text("x")
    assert [kind for kind, _ in events] == ["flushed", "named", "flushed"]
    assert events[2][1] == str(tmp_path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with replacing(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_a_lock_that_cannot_say_who_holds_it_holds_and_is_given_back(tmp_path):
    (tmp_path / "process.json").mkdir()
    with FolderLock(tmp_path), pytest.raises(ValueError, match="which another process is using"):
        FolderLock(tmp_path).__enter__()
    shutil.rmtree(tmp_path / "process.json")
    with FolderLock(tmp_path):
        assert (tmp_path / "process.json").is_file()


def test_a_model_of_another_shape_is_rejected(tmp_path):
    as_source(build(), callbacks=[Checkpoints(tmp_path)])
    wider = build()
    wider.projector = keras.layers.Dense(4, use_bias=False)
    with pytest.raises(ValueError, match="whose model is"):
        as_source(wider, callbacks=[Checkpoints(tmp_path)])


def test_arrays_and_sources_have_digests_once_for_each_fit(tmp_path, monkeypatch):
    asked = []
    fingerprint = ArrayBatches.fingerprint.fget
    monkeypatch.setattr(
        ArrayBatches, "fingerprint", property(lambda self: asked.append(1) or fingerprint(self))
    )
    as_arrays(build(), callbacks=[Checkpoints(tmp_path, 1)])
    assert len(asked) == 1


def test_what_a_kill_left_of_a_log_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".part-1-log.csv").write_text("epo")
    others = {".part-1-model.keras", ".part-1-old-log.csv"}
    for name in others:
        (tmp_path / name).write_text("of another owner")
    build().fit(batches(), verbose=0, callbacks=[LogFile(tmp_path / "log.csv")])
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv", *others}
