"""Which ranks a model finds, and the batch and the loss that they share."""

from types import SimpleNamespace

import numpy as np
import pytest
from devices.threads import Thread, on_all, ranks
from keras import ops
from models import SIZE, small_model, small_nnclr, small_pic

from instdisc_core import Communicator, MemoryBank, get_communicator
from instdisc_core import communicator as module
from instdisc_core.data import ArrayBatches
from instdisc_core.fitting.ranks import StopTogether


@pytest.fixture
def two_ranks(monkeypatch):
    """As if this process were the first of two."""
    monkeypatch.setattr(module, "_loaded", dict.fromkeys(("torch", "tensorflow", "jax"), _first))


def _first():
    return ranks(2)[0]


def test_one_device_is_the_default():
    own = get_communicator()
    assert (own.rank, own.size, own.process, own.processes) == (0, 1, 0, 1)
    assert MemoryBank(4, 2).communicator.size == 1


def test_a_bank_finds_its_ranks_or_takes_those_given(two_ranks):
    assert MemoryBank(4, 2).communicator.size == 2
    assert MemoryBank(4, 2, communicator=Communicator()).communicator.size == 1


@pytest.mark.framework_independent
def test_something_else_is_no_communicator():
    with pytest.raises(ValueError, match=r"communicator='torch'"):
        get_communicator("torch")


def test_other_methods_say_that_they_train_on_one_device(two_ranks):
    with pytest.raises(ValueError, match=r"PIC on 2 ranks. Expected one device"):
        small_pic()


def test_nnclr_trains_on_ranks_that_divide_its_branches(two_ranks, monkeypatch):
    with pytest.raises(ValueError, match=r"NNCLR on 2 ranks. Expected one device, or torchrun"):
        small_nnclr()
    monkeypatch.setattr(Thread, "divides_branches", True)
    assert small_nnclr().communicator.size == 2


def test_ranks_that_are_found_after_the_model_was_built(monkeypatch):
    model = small_model()
    monkeypatch.setattr(module, "_loaded", dict.fromkeys(("torch", "tensorflow", "jax"), _first))
    with pytest.raises(ValueError, match="a model of 1 ranks in a process group of 2"):
        model.fit(np.ones((SIZE, 3), "float32"), np.arange(SIZE), verbose=0)


def test_the_whole_batch_has_the_order_of_the_ranks():
    own, lengths = ranks(3), (2, 0, 1)

    def gathered(rank):
        start = sum(lengths[:rank])
        rows = ops.convert_to_tensor(np.eye(3, dtype="float32")[start : start + lengths[rank]])
        y = ops.convert_to_tensor(np.arange(start, start + lengths[rank], dtype="int32"))
        features, indices, nothing = own[rank].whole_batch(rows, y, None)
        assert nothing is None
        return ops.convert_to_numpy(features), ops.convert_to_numpy(indices)

    for features, indices in on_all(gathered, 3):
        np.testing.assert_array_equal(features, np.eye(3))
        np.testing.assert_array_equal(indices, [0, 1, 2])


@pytest.mark.framework_independent
def test_each_process_reads_its_part_of_every_batch():
    x = np.arange(11)
    whole = ArrayBatches(x, x, batch_size=5, seed=0, part=(0, 1))
    own = [ArrayBatches(x, x, batch_size=5, seed=0, part=(part, 3)) for part in range(3)]
    for step in range(3):
        given = [batches[step][1] for batches in own]
        np.testing.assert_array_equal(np.concatenate(given), whole[step][1])
        assert max(map(len, given)) - min(map(len, given)) <= 1


@pytest.mark.framework_independent
@pytest.mark.parametrize("stopping", [(), (1,)])
def test_all_ranks_stop_after_an_epoch_in_which_one_does(stopping):
    own = ranks(3)

    def stopped(rank):
        together = StopTogether()
        model = SimpleNamespace(stop_training=rank in stopping, communicator=own[rank])
        together.set_model(model)
        together.on_epoch_end(0)
        return model.stop_training

    assert on_all(stopped, 3) == 3 * [bool(stopping)]
