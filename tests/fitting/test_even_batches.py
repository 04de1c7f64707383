"""Batches that are filled up so that devices divide them, and what a step makes of them."""

import numpy as np
import pytest

from instdisc_core.data import ArrayBatches
from instdisc_core.fitting.even_batches import EvenBatches, divided, without_padding

pytestmark = pytest.mark.framework_independent
N, BATCH = 23, 8  # the last batch has 7 images
IMAGES = np.arange(N, dtype="float32")[:, None]


def batches(weights=None, part=(0, 1), devices=4):
    batches = ArrayBatches(IMAGES, np.arange(N), weights, BATCH, seed=0)
    expected = [batches[i] for i in range(len(batches))]
    batches.part, batches.devices = part, devices
    return EvenBatches(batches), expected


@pytest.mark.parametrize("weights", [None, np.linspace(1, 2, N)])
def test_a_step_gets_the_batches_as_they_were(weights):
    even, expected = batches(weights)
    for number, batch in enumerate(expected):
        filled = even[number]
        assert len(filled[0]) == 8
        for found, part in zip(without_padding(filled), (*batch, None)[:3], strict=True):
            np.testing.assert_array_equal(found, part)


def test_processes_have_equal_parts_of_which_the_last_ones_are_filled_up():
    parts = [batches(part=(process, 2))[0] for process in (0, 1)]
    _, expected = batches()
    for number, (x, y) in enumerate(expected):
        found = [even[number] for even in parts]
        assert [len(part[0]) for part in found] == [4, 4]
        assert {part[2]["count"].shape for part in found} == {(2, len(x))}
        joined = np.concatenate([part[1] for part in found])
        np.testing.assert_array_equal(joined[: len(y)], y)
        assert set(joined[len(y) :]) <= {y[-1]}


def test_other_data_are_left_as_they_are():
    data = (IMAGES, np.arange(N), np.ones(N))
    assert without_padding(data) is data
    assert without_padding(data[:2]) == data[:2]


def test_one_device_needs_no_filling():
    with divided(IMAGES, np.arange(N), batch_size=BATCH) as even:
        assert even is None
