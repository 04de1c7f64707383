"""What the steps of an epoch left out is counted for that epoch alone."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from instdisc_core import MemoryBank
from instdisc_core.fitting import NonFiniteImages, RejectedIndices
from instdisc_core.fitting.rejections import Rejections


@pytest.fixture
def model():
    """What the callbacks look at, after a fit in which three of each were rejected."""
    bank = MemoryBank(4, 2)
    bank.rejected_indices.assign(3)
    images = keras.Variable(3, dtype="int32", trainable=False)
    return SimpleNamespace(instance_rows=lambda: bank, rejected_images=images, non_finite="raise")


def begun(callback, model):
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    return callback


def test_indices_rejected_in_an_earlier_fit_are_ignored_and_those_of_this_one_are_not(model):
    callback = begun(RejectedIndices(), model)
    callback.on_epoch_end(0)
    callback.on_epoch_begin(1)
    model.instance_rows().rejected_indices.assign(5)
    with pytest.raises(ValueError, match=r"2 instance indices in epoch 2 .* \[0, 4\)"):
        callback.on_epoch_end(1)


def test_images_rejected_in_an_earlier_fit_are_ignored_and_those_of_this_one_are_not(model):
    callback = begun(NonFiniteImages(), model)
    callback.on_epoch_end(0)
    callback.on_epoch_begin(1)
    model.rejected_images.assign(5)
    with pytest.raises(ValueError, match=r"2 images in epoch 2 with pixels that are not finite"):
        callback.on_epoch_end(1)


def test_images_that_are_skipped_cause_a_warning(model):
    model.non_finite = "skip"
    callback = begun(NonFiniteImages(), model)
    callback.report(0, epoch=0)  # a warning would be an error
    with pytest.warns(UserWarning, match="2 images in epoch 2 .* left out"):
        callback.report(2, epoch=1)


class Reports(Rejections):
    """Keeps what it is asked to report."""

    def __init__(self):
        super().__init__()
        self.reports = []

    def counter(self):
        return self.model.rejected_images

    def report(self, count, epoch):
        self.reports.append((epoch, count))


def test_each_epoch_is_counted_by_itself(model):
    callback = begun(Reports(), model)
    for epoch, count in enumerate([3, 5, 5, 6]):
        callback.on_epoch_begin(epoch)
        model.rejected_images.assign(count)
        callback.on_epoch_end(epoch)
    assert callback.reports == [(0, 0), (1, 2), (2, 0), (3, 1)]


def test_a_run_that_is_resumed_in_an_epoch_counts_what_that_epoch_left_out_before(model):
    stopped = begun(RejectedIndices(), model)
    model.instance_rows().rejected_indices.assign(5)
    state = {name: np.array(value) for name, value in stopped.get_state().items()}
    resumed = RejectedIndices()
    resumed.set_model(model)
    resumed.on_train_begin()
    resumed.set_state(state)  # as Checkpoints does when training begins
    resumed.on_epoch_begin(7)
    with pytest.raises(ValueError, match="2 instance indices in epoch 8 "):
        resumed.on_epoch_end(7)


def test_a_count_that_another_callback_loads_is_not_of_the_first_epoch(model):
    callback = Reports()
    callback.set_model(model)
    callback.on_train_begin()
    model.rejected_images.assign(9)  # as BackupAndRestore does when training begins
    callback.on_epoch_begin(0)
    assert int(callback.get_state()["before"]) == 9
    callback.on_epoch_end(0)
    assert int(callback.get_state()["before"]) == 9
    assert callback.reports == [(0, 0)]
