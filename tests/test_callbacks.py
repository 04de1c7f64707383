"""Callbacks by themselves: what each hands on, and when."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from instdisc_core import InstanceDiscrimination, MemoryBank
from instdisc_core.data import ImageArray
from instdisc_core.fitting import DataOrder, RejectedIndices

# -- RejectedIndices


def test_indices_rejected_in_an_earlier_fit_are_forgiven_and_those_of_this_one_are_not():
    bank = MemoryBank(4, 2)
    bank.rejected_indices.assign(3)
    callback = RejectedIndices()
    callback.set_model(SimpleNamespace(memory_bank=bank))
    callback.on_train_begin()
    callback.on_epoch_end(0)
    bank.rejected_indices.assign(5)
    with pytest.raises(ValueError, match=r"2 instance indices in epoch 2 .* \[0, 4\)"):
        callback.on_epoch_end(1)


# -- DataOrder


def test_batches_know_their_epoch_and_the_model_its_data():
    source = ImageArray(np.arange(4 * 48, dtype="uint8").reshape(4, 4, 4, 3))
    other = ImageArray(255 - source.images())
    batches = source.batches(2, seed=0)
    model = InstanceDiscrimination(keras.layers.Flatten(), 4, 2)
    callback = DataOrder(batches)
    callback.set_model(model)
    assert model.manifest is None
    callback.on_epoch_begin(7)
    assert batches.epoch == 7
    assert model.manifest is source.manifest
    model.manifest = other.manifest  # as if a checkpoint of other data had been restored
    with pytest.raises(ValueError, match="4 changed: image 0, image 1, image 2, image 3"):
        callback.on_epoch_begin(8)
    assert batches.epoch == 7
    assert model.manifest is other.manifest
