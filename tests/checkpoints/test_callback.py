"""A run that is stopped ends as one that is not, and what Checkpoints take."""

import errno
import os

import keras
import numpy as np
import pytest
from damage import flip
from differentiation import numpy
from trainings import (
    BATCH,
    EPOCHS,
    IMAGES,
    STEPS,
    Ask,
    N,
    Stop,
    as_arrays,
    as_source,
    assert_equal,
    batches,
    build,
    build_plain,
    names,
    run,
)

from instdisc_core.callbacks import BankHealth, LogFile
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.checkpoints import folder as checkpoint_folder

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
# Four numbers of an untrained network may all point one way; it depends on how weights are drawn.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:Collapse after epoch"
)


def assert_ends_equal(folder, expected, expected_folder, train, stop, save_freq, **kwargs):
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


@pytest.mark.parametrize(
    ("train", "save_freq", "stop"),
    [
        pytest.param(as_source, 1, 2, marks=pytest.mark.on_one_backend),
        (as_source, 2, 4),
        pytest.param(as_source, "epoch", 5, marks=pytest.mark.on_one_backend),
        (as_arrays, 1, 4),
        pytest.param(as_arrays, "epoch", 5, marks=pytest.mark.on_one_backend),
    ],
)
def test_a_run_stopped_again_and_again_ends_equal(tmp_path, whole, train, save_freq, stop):
    assert_ends_equal(tmp_path, *whole[train], train, stop, save_freq)


@pytest.mark.on_one_backend
def test_checkpoints_are_further_apart_than_epochs(tmp_path, whole):
    """With three steps an epoch, five are complete after the second; the last one is saved, too."""
    assert (EPOCHS, STEPS) == (3, 3)
    run(as_source, tmp_path, save_freq=5)
    saved = names(tmp_path / "saved")
    assert saved == ["epoch-00002-step-0000000", "epoch-00003-step-0000000"]
    assert_ends_equal(tmp_path / "again", *whole[as_source], as_source, 8, 5)


@pytest.mark.on_one_backend
def test_the_last_epoch_is_saved_as_it_was_where_a_callback_then_restores_another(tmp_path):
    class Loss(keras.callbacks.Callback):
        """Says that the first epoch was the best, and keeps what the newest one ended with."""

        def on_epoch_end(self, epoch, logs=None):
            logs["judged"] = float(epoch)
            self.weights = self.model.get_weights()

    model, ends = build_plain(), Loss()
    stop = keras.callbacks.EarlyStopping("judged", mode="min", restore_best_weights=True)
    as_source(model, callbacks=[ends, stop, Checkpoints(tmp_path, save_freq=100)])
    assert names(tmp_path) == ["epoch-00002-step-0000000"]
    again = build_plain()
    again.fit(batches(), epochs=2, verbose=0, callbacks=[Checkpoints(tmp_path)])
    assert again.history.epoch == []
    assert names(tmp_path) == ["epoch-00002-step-0000000"]
    saved, restored = again.get_weights(), model.get_weights()
    assert all(map(np.array_equal, saved, ends.weights))
    assert not all(map(np.array_equal, restored, ends.weights))


def test_a_compiled_run_that_is_stopped_ends_equal(tmp_path_factory):
    first, second = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("stopped")
    expected = run(as_source, first, compiled=True)
    assert_ends_equal(second, expected, first, as_source, 5, 1, compiled=True)


def read(folder):
    log = folder / "log.csv"
    return log.read_text().splitlines()[1:] if log.exists() else []


@pytest.mark.on_one_backend
def test_a_run_that_is_complete_runs_no_further(tmp_path, whole):
    run(as_source, tmp_path)
    again = run(as_source, tmp_path, stop=1)
    assert_equal(again, whole[as_source][0])


@pytest.mark.on_one_backend
def test_a_later_fit_of_the_model_starts_at_the_first_epoch(tmp_path):
    model = run(as_source, tmp_path)
    assert model.fit(batches(), verbose=0).epoch == [0]


def newest(folder):
    return max((folder / "saved").glob("epoch*"))


@pytest.mark.on_one_backend
def test_from_the_one_before_a_run_ends_equal(stopped, whole):
    flip(newest(stopped) / "model.weights.h5")
    with pytest.warns(UserWarning, match="Damaged checkpoints"):
        model = run(as_source, stopped)
    assert_equal(model, whole[as_source][0])


def test_where_all_are_damaged_nothing_starts_from_the_beginning(stopped):
    for path in (stopped / "saved").glob("epoch*"):
        flip(path / "state.npz")
    with pytest.raises(ValueError, match=r"every checkpoint is damaged: .*Restore one"):
        run(as_source, stopped)


@pytest.mark.parametrize(
    "where",
    [
        "flush",
        *(pytest.param(step, marks=pytest.mark.on_one_backend) for step in ("rename", "rmtree")),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt,
        pytest.param(OSError(errno.ENOSPC, "No space"), marks=pytest.mark.on_one_backend),
    ],
)
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


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(4, marks=pytest.mark.on_one_backend),
        5,
        pytest.param(6, marks=pytest.mark.on_one_backend),
    ],
)
def test_a_stopped_epoch_continues_with_its_metrics_and_what_callbacks_know(tmp_path, stop):
    """A callback stops the second epoch, after which Keras evaluates and others see it end."""

    def train(folder, steps):
        model = build_plain()
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


@pytest.mark.on_one_backend
def test_what_stops_the_rest_of_an_epoch_stops_the_training(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1), Stop(STEPS + 2)])
    model = build_plain()
    as_source(model, callbacks=[Checkpoints(tmp_path, 1), Ask(1)])
    assert int(numpy(model.optimizer.iterations)) == STEPS + 2


@pytest.mark.on_one_backend
def test_a_stream_that_is_stopped_in_an_epoch_counts_whole_epochs_only(tmp_path):
    def stream():
        while True:
            for start in range(0, N, BATCH):
                yield IMAGES[start : start + BATCH], np.arange(start, min(start + BATCH, N))

    model = build_plain()
    model.build((None, 2, 2, 3))
    settings = {"epochs": 3, "steps_per_epoch": STEPS, "shuffle": False, "verbose": 0}
    model.fit(stream(), callbacks=[Ask(4), Checkpoints(tmp_path)], **settings)
    assert names(tmp_path) == ["epoch-00001-step-0000000"]


@pytest.mark.on_one_backend
def test_a_position_beyond_the_last_epoch_trains_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1), Stop(STEPS + 2)])
    model = build_plain()
    history = model.fit(batches(), epochs=1, verbose=0, callbacks=[Checkpoints(tmp_path, 1)])
    assert history.epoch == []
    assert int(numpy(model.optimizer.iterations)) == STEPS + 1


@pytest.mark.on_one_backend
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


@pytest.mark.parametrize("scaled", [False, True])
def test_averaged_weights_are_saved_after_whole_epochs_only(tmp_path, scaled):
    optimizer = keras.optimizers.SGD(0.01, use_ema=True)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match="save_freq=1 and an optimizer with use_ema=True"):
        as_source(build_plain(optimizer), callbacks=[Checkpoints(tmp_path, 1)])


def test_only_an_instance_discrimination_model_has_checkpoints(tmp_path):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Checkpoints in the fit of Sequential"):
        model.fit(np.ones((2, 2)), np.ones(2), verbose=0, callbacks=[Checkpoints(tmp_path)])


@pytest.mark.on_one_backend
def test_an_old_checkpoint_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    """Whenever the process ends, some checkpoint is whole: even with one that is kept."""
    rename, seen = checkpoint_folder.os.rename, []

    def watched(source, target):
        seen.append(bool(names(tmp_path)))
        rename(source, target)
        seen.append(bool(names(tmp_path)))

    monkeypatch.setattr(checkpoint_folder.os, "rename", watched)
    as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1, keep=1)])
    assert len(seen) > 4
    assert all(seen[1:]), "none before the first, and one ever after"
