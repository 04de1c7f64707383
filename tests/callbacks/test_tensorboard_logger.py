"""Logs for TensorBoard."""

import struct

import numpy as np
import pytest
from small_model import images, model_of

from instdisc_core.callbacks import TensorBoardLogger


def scalars(path):
    """Step, name and value of the scalars in an event file, read without any library's reader."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return found


def test_tensorboard_gets_the_loss_of_every_epoch(tmp_path):
    logs = model_of().fit(
        images(), np.arange(16), epochs=2, verbose=0, callbacks=[TensorBoardLogger(tmp_path)]
    )
    found = scalars(next(tmp_path.glob("events*")))
    losses = [(step, value) for step, name, value in found if name == "loss"]
    assert losses == [(i + 1, pytest.approx(loss)) for i, loss in enumerate(logs.history["loss"])]
