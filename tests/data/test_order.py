"""A window that slides over all images: what it holds, and how often each image is seen."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import numbered, shown

from instdisc_core.data import ArrayBatches, ImageArray, SlidingWindow

pytestmark = pytest.mark.framework_independent


@st.composite
def windows(draw):
    """Numbers of images and windows, of which the stride may not divide that number."""
    stride, strides = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    return draw(st.integers(max(2, strides * stride), 120)), SlidingWindow(strides * stride, stride)


def sizes(n, window):
    """How many images each window of one way around the circle holds."""
    strides = np.minimum(window.stride, n - np.arange(0, n, window.stride))
    k = window.window // window.stride
    return [int(np.roll(strides, -first)[:k].sum()) for first in range(len(strides))]


@given(windows(), st.integers(0, 2**32))
def test_windows_share_images_and_hold_none_twice(case, seed):
    n, window = case
    sequence = window.order(n, seed, 0, n * window.window // window.stride + window.window)
    ends = np.cumsum(sizes(n, window))
    held = [set(part.tolist()) for part in np.split(sequence, ends)]
    assert [len(one) for one in held[:-1]] == sizes(n, window), "an image twice in a window"
    for one, following in itertools.pairwise(held):
        assert len(one - following) <= window.stride
    if n % window.stride == 0:
        shared = [len(one & following) for one, following in itertools.pairwise(held)]
        assert min(shared) >= window.window - window.stride
        if 2 * window.window <= n:
            assert set(shared) == {window.window - window.stride}
        assert held[-1] == held[0], "the circle is closed"


@given(windows(), st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 3))
def test_every_image_is_seen_equally_often(case, seed, batch_size, lap):
    n, window = case
    batches = ImageArray(numbered(n)).batches(batch_size, seed, sliding_window=window)
    plain = ImageArray(numbered(n)).batches(batch_size, seed)
    times, seen = window.window // window.stride, []
    for epoch in range(lap * times, (lap + 1) * times):
        batches.epoch = epoch
        parts = [indices for _, indices in batches]
        assert [len(part) for part in parts] == [len(indices) for _, indices in plain]
        seen += parts
    np.testing.assert_array_equal(np.bincount(np.concatenate(seen), minlength=n), times)


@given(windows(), st.integers(0, 2**32), st.data())
def test_any_part_of_the_sequence_is_that_part(case, seed, data):
    n, window = case
    whole = window.order(n, seed, 0, 4 * n)
    start = data.draw(st.integers(0, 4 * n))
    count = data.draw(st.integers(0, 4 * n - start))
    np.testing.assert_array_equal(window.order(n, seed, start, count), whole[start : start + count])
    if n > 20:
        assert not np.array_equal(window.order(n, seed + 1, 0, n), whole[:n])


def test_each_time_around_is_in_another_order():
    window = SlidingWindow(40, 10)
    first, second = np.split(window.order(40, 0, 0, 320), 2)
    assert not np.array_equal(first, second)


def test_a_dropped_remainder_is_not_left_out_of_the_sequence():
    batches = ImageArray(numbered(10)).batches(
        4, seed=0, drop_remainder=True, sliding_window=SlidingWindow(6, 2)
    )
    found = []
    for batches.epoch in range(3):
        images, indices = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        assert np.array_equal(shown(images), indices)
        found.append(indices)
    np.testing.assert_array_equal(np.concatenate(found), SlidingWindow(6, 2).order(10, 0, 0, 24))


def test_arrays_slide_too():
    batches = ArrayBatches(np.arange(9), np.arange(9), None, 4, 3, SlidingWindow(6, 3))
    batches.epoch = 1
    found = np.concatenate([batch[1] for batch in batches])
    np.testing.assert_array_equal(found, SlidingWindow(6, 3).order(9, 3, 9, 9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SlidingWindow(6, 4), "window=6 and stride=4. Expected a .* Set window=4"),
        (lambda: SlidingWindow(2, 3), "window=2 and stride=3. Expected a .* Set window=3"),
        (lambda: SlidingWindow(6, 0), "stride=0"),
        (lambda: SlidingWindow(0, 1), "window=0"),
        (lambda: SlidingWindow(4, 2.0), "stride=2.0"),
        (
            lambda: ImageArray(numbered(5)).batches(2, 0, sliding_window=SlidingWindow(6, 3)),
            "of 5 images. Expected a window .* Set window=3, or train without",
        ),
        (
            lambda: ImageArray(numbered(5)).batches(2, 0, sliding_window=SlidingWindow(6, 6)),
            "of 5 images. Expected a window .* Set window and stride to at most 5, or",
        ),
        (
            lambda: ArrayBatches(np.arange(9), np.arange(9), sliding_window=SlidingWindow(6, 3)),
            "seed=None. Expected a seed, .* Set seed=0",
        ),
    ],
)
def test_windows_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=f"Received: .*{message}"):
        make()
