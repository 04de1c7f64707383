"""Batches of images and of arrays, in their order."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import numbered, shown
from trainings import IMAGES, N

from instdisc_core.data import ArrayBatches, ImageArray, ImageFolder


@given(st.integers(2, 300), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_shows_every_image_once_and_is_a_function_of_seed_and_epoch(n, size, seed, epoch):
    batches = ImageArray(numbered(n)).batches(size, seed)
    batches.epoch = epoch
    images, indices = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(shown(images), indices)
    assert np.array_equal(np.sort(indices), np.arange(n))
    again = ImageArray(numbered(n)).batches(size, seed)
    again.epoch = epoch
    assert np.array_equal(again[len(again) - 1][1], batches[len(batches) - 1][1])
    if n > 20:
        assert not np.array_equal(batches.order(epoch + 1), indices)
        assert not np.array_equal(ImageArray(numbered(n)).batches(size, seed + 1).order(0), indices)


def test_nothing_is_kept_that_was_decoded_for_another_epoch(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(3, seed=0)
    batches[0]
    assert set(batches._ahead) == {(0, 1), (0, 2)}
    batches.epoch = 1
    batches[0]
    assert set(batches._ahead) == {(1, 1), (1, 2)}
    batches.on_epoch_end()
    assert not batches._ahead


def test_several_threads_get_the_right_batches(folder):
    source = ImageFolder(folder, 8, cache=False)
    batches = source.batches(3, seed=0)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(batches.__getitem__, [0, 1, 2, 3] * 5))
    for step, (images, indices) in enumerate(found):
        assert np.array_equal(indices, batches.indices(0, step % 4))
        assert np.array_equal(images, source.images(indices))


def test_a_remainder_can_be_dropped():
    batches = ImageArray(numbered(10)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in batches] == [4, 4]
    small = ImageArray(numbered(3)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in small] == [3]


def test_ordered_batches_hold_images_alone_in_order():
    (first,), (second,) = ImageArray(numbered(5)).ordered(3)
    assert shown(np.concatenate([first, second])).tolist() == [0, 1, 2, 3, 4]


def test_a_batch_beyond_the_last_raises():
    with pytest.raises(IndexError, match=r"batch 2\. Expected one of 0 to 1"):
        ImageArray(numbered(5)).ordered(3)[2]


def test_the_next_batches_are_decoded_ahead_and_each_once(folder, monkeypatch):
    source = ImageFolder(folder, 8, cache=False)
    decoded, lock = [], threading.Lock()
    decode_one = type(source)._decode

    def counting(self, index):
        with lock:
            decoded.append(index)
        return decode_one(self, index)

    monkeypatch.setattr(type(source), "_decode", counting)
    batches = source.batches(3, seed=0, prefetch=2)
    batches[0]
    for step in (1, 2):
        batches._ahead[0, step]()  # waits: they were begun
    assert len(decoded) == 9
    for step in (1, 2, 3):
        batches[step]
    assert sorted(decoded) == list(range(12))


def test_batches_on_the_device_are_the_same():
    source = ImageArray(numbered(10))
    here, there = source.batches(4, seed=3), source.batches(4, seed=3, on_device=True)
    for (a, i), (b, j) in zip(here, there, strict=True):
        assert np.array_equal(a, keras.ops.convert_to_numpy(b))
        assert np.array_equal(i, j)


def test_sources_and_batches_can_be_pickled(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(4, seed=0)
    first = batches[0]
    again = pickle.loads(pickle.dumps(batches))
    assert np.array_equal(again[0][0], first[0])


# -- arrays


def arrays(n, **kwargs):
    """Nested arrays that all show the index of their image."""
    indices = np.arange(n)
    x = {"a": indices, "b": [10 * indices]}
    return ArrayBatches(x, indices, 0.5 * indices, batch_size=4, **kwargs)


def test_arrays_are_batched_together_in_an_order_of_seed_and_epoch():
    batches = arrays(10, seed=3)
    batches.epoch = 2
    order = np.concatenate([batch[1] for batch in batches])
    assert np.array_equal(order, arrays(10, seed=3).order(2))
    assert np.array_equal(np.sort(order), np.arange(10))
    assert not np.array_equal(order, batches.order(1))
    for x, y, weights in batches:
        assert np.array_equal(x["a"], y)
        assert np.array_equal(x["b"][0], 10 * y)
        assert np.array_equal(weights, 0.5 * y)


def test_arrays_without_a_seed_keep_their_order():
    batches = arrays(10)
    batches.epoch = 5
    assert [batch[1].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_arrays_of_different_lengths_are_rejected():
    with pytest.raises(ValueError, match=r"lengths \[2, 3\]\. Expected as many indices"):
        ArrayBatches(np.zeros(3), np.arange(2))
    with pytest.raises(ValueError, match=r"lengths \[3, 4\]"):
        ArrayBatches(np.zeros(3), np.arange(3), np.ones(4))


def test_a_fingerprint_of_arrays_differs_with_values_dtype_and_shape():
    given = [np.arange(4), np.arange(4)[::-1].copy(), np.arange(4, dtype="int8"), np.arange(8)]
    given.append(np.arange(4)[:, None])
    prints = {ArrayBatches(x, np.arange(len(x))).fingerprint for x in given}
    assert len(prints) == len(given)
    assert ArrayBatches(np.arange(4), np.arange(4)).fingerprint in prints


def test_tensors_become_arrays_and_each_epoch_has_an_order_of_its_own():
    arrays = ArrayBatches(keras.ops.convert_to_tensor(IMAGES), np.arange(N), seed=0, batch_size=N)
    orders = []
    for arrays.epoch in (0, 1, 0):
        images, order = arrays[0]
        np.testing.assert_array_equal(images, IMAGES[order])
        orders.append(order.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(N))
    assert orders[0] == orders[2] != orders[1]
