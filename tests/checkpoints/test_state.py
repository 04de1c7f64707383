"""The states of other callbacks, which a checkpoint holds."""

import os

import keras
import numpy as np
import pytest
from damage import cut, flip
from trainings import (
    BATCH,
    EPOCHS,
    IMAGES,
    STEPS,
    Count,
    N,
    Stop,
    as_source,
    build,
    build_plain,
    names,
    run,
)

from instdisc_core.callbacks import LogFile
from instdisc_core.checkpoints import Checkpoints

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.on_one_backend
def test_states_stay_with_their_callbacks_when_others_are_added(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Count(), Checkpoints(tmp_path, 1), Stop(5)])
    count = Count()
    nan = keras.callbacks.TerminateOnNaN()
    as_source(build_plain(), callbacks=[nan, count, Checkpoints(tmp_path, 1)])
    assert count.steps == EPOCHS * STEPS


@pytest.mark.on_one_backend
def test_states_that_nobody_takes_are_named(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Count(), Checkpoints(tmp_path, 1), Stop(5)])
    with pytest.warns(UserWarning, match=r"not given: \['callback/Count/0'\]"):
        as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1)])


@pytest.mark.on_one_backend
def test_a_state_that_only_a_pickle_holds_is_rejected_when_it_is_saved(tmp_path):
    class Careless(Count):
        def get_state(self):
            return {"best": None}

    with pytest.raises(ValueError, match=r"callback/Careless/0/best of dtype object"):
        as_source(build_plain(), callbacks=[Careless(), Checkpoints(tmp_path, 1)])
    assert not names(tmp_path)


@pytest.mark.on_one_backend
def test_the_last_logs_reach_the_end_of_a_training_that_was_resumed_in_its_last_epoch(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1), Stop(EPOCHS * STEPS - 1)])
    count = Count()
    as_source(build_plain(), callbacks=[count, Checkpoints(tmp_path, 1)])
    assert count.ended_with["loss"] > 0


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


@pytest.mark.on_one_backend
@pytest.mark.parametrize("damage", [os.unlink, flip, cut])
def test_a_log_is_restored_with_the_checkpoint(stopped, whole, damage):
    damage(stopped / "log.csv")
    run(as_source, stopped)
    assert (stopped / "log.csv").read_bytes() == (whole[as_source][1] / "log.csv").read_bytes()


@pytest.mark.on_one_backend
@pytest.mark.parametrize("damage", ["missing", "another"])
def test_the_log_of_a_complete_run_comes_back(tmp_path, damage):
    log = tmp_path / "log.csv"
    as_source(build_plain(), callbacks=[LogFile(log), Checkpoints(tmp_path)])
    expected = log.read_bytes()
    log.unlink() if damage == "missing" else log.write_text("x")
    as_source(build_plain(), callbacks=[LogFile(log), Checkpoints(tmp_path)])
    assert log.read_bytes() == expected
