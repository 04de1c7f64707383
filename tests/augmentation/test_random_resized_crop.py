"""Crops: their place and size, their resizing, and that each image gets its own draw."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from pixels import assert_same_distribution, noise

from instdisc_core.augmentation import RandomResizedCrop
from instdisc_core.augmentation.random_resized_crop import _interpolation

# Few sizes, since JAX compiles for each: the smallest, shrinking, growing and odd ones.
SIZES = ((1, 1), (1, 5), (40, 1), (40, 7), (7, 40), (33, 33))


def axis(start, length, pixels, outputs):
    one = keras.ops.convert_to_tensor(np.array([start, length], "float32"))
    return numpy(_interpolation(one[:1], one[1:], pixels, outputs))[0]


@given(st.sampled_from(SIZES), st.data())
def test_weights_are_those_of_pillow_s_resize(sizes, data):
    """Pillow resizes a crop by the same triangle; it is checked along one axis, pixel by pixel."""
    pixels, outputs = sizes
    image = pytest.importorskip("PIL.Image")
    start = data.draw(st.integers(0, pixels - 1))
    length = data.draw(st.integers(1, pixels - start))
    weights = axis(start, length, pixels, outputs)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.all(weights[:, :start] == 0)
    assert np.all(weights[:, start + length :] == 0)
    line = noise(pixels, seed=data.draw(st.integers(0, 2**32 - 1)))
    cut = image.fromarray(line[None, start : start + length])
    expected = np.asarray(cut.resize((outputs, 1), image.Resampling.BILINEAR))[0]
    np.testing.assert_allclose(weights @ line, expected, atol=1e-5)


def test_outside_training_images_are_resized_whole():
    images = noise(64, 16, 16, 3)
    crop = RandomResizedCrop(16, 16, flip=True, seed=0)
    np.testing.assert_allclose(numpy(crop(images)), images, atol=1e-6)
    assert crop(images[:, :5]).shape == (64, 16, 16, 3)


def test_a_flip_mirrors_half_of_the_images_and_nothing_else():
    images = np.tile(noise(1, 6, 9, 3), (400, 1, 1, 1))
    crop = RandomResizedCrop(6, 9, scale=(1, 1), ratio=(1.5, 1.5), flip=True, seed=0)
    crops = numpy(crop(images, training=True))
    same = np.all(np.isclose(crops, images, atol=1e-5), axis=(1, 2, 3))
    mirrored = np.all(np.isclose(crops, images[:, :, ::-1], atol=1e-5), axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert 160 < mirrored.sum() < 240


def drawn_as_torchvision_draws(rng, rows, columns, scale, ratio):
    """One crop, by the loop that its documentation describes."""
    for _ in range(10):
        area = rows * columns * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        width, height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            top = rng.integers(0, rows - height + 1)
            return top, rng.integers(0, columns - width + 1), height, width
    if columns / rows < ratio[0]:
        width, height = columns, round(columns / ratio[0])
    elif columns / rows > ratio[1]:
        width, height = round(rows * ratio[1]), rows
    else:
        width, height = columns, rows
    return (rows - height) // 2, (columns - width) // 2, height, width


def with_pairs(boxes):
    """Top, left, height and width, and the sums and differences of each two of them."""
    first, second = np.triu_indices(4, k=1)
    one, other = boxes[:, first], boxes[:, second]
    return np.concatenate([boxes, one + other, one - other], axis=1)


@pytest.mark.parametrize(
    ("rows", "columns", "scale", "ratio"),
    [(32, 32, (0.2, 1), (3 / 4, 4 / 3)), (20, 40, (0.5, 1), (0.5, 1.2)), (40, 10, (1, 1), (1, 2))],
)
def test_crops_are_distributed_as_torchvision_s(rows, columns, scale, ratio):
    crop = RandomResizedCrop(8, 8, scale, ratio, seed=0)
    ours = np.stack([numpy(box) for box in crop.boxes(4000, rows, columns)], axis=1)
    rng = np.random.default_rng(1)
    theirs = np.array(
        [drawn_as_torchvision_draws(rng, rows, columns, scale, ratio) for _ in range(4000)]
    )
    for one, other in zip(with_pairs(ours).T, with_pairs(theirs).T, strict=True):
        assert_same_distribution(one, other, false_alarms=1e-6)
    assert np.all(ours[:, :2] >= 0)
    assert np.all(ours[:, 0] + ours[:, 2] <= rows)
    assert np.all(ours[:, 1] + ours[:, 3] <= columns)


def test_a_flip_does_not_depend_on_the_place_of_the_crop():
    columns = np.arange(9, dtype="float32")[:, None]
    images = np.broadcast_to(columns, (400, 6, 9, 3))
    crop = RandomResizedCrop(6, 9, scale=(0.25, 0.25), ratio=(1, 1), flip=True, seed=0)
    ends = numpy(crop(images, training=True))[:, 0, [0, -1], 0]
    mirrored, place = ends[:, 0] > ends[:, 1], ends.mean(axis=1)
    assert abs(np.corrcoef(mirrored, place)[0, 1]) < 0.3


def test_a_crop_of_a_thin_image_has_at_least_one_pixel():
    """The largest crop of an allowed ratio would have a third of a pixel."""
    for rows, columns, ratio in ((20, 1, (3, 4)), (1, 20, (1 / 4, 1 / 3))):
        boxes = RandomResizedCrop(8, 8, ratio=ratio, seed=0).boxes(4000, rows, columns)
        top, left, height, width = map(numpy, boxes)
        assert np.all(height == 1)
        assert np.all(width == 1)
        assert np.all((top >= 0) & (top < rows) & (left >= 0) & (left < columns))


def test_every_image_gets_a_crop_of_its_own_and_its_input_stays():
    images = np.tile(noise(1, 16, 16, 3), (64, 1, 1, 1))
    given_images = keras.ops.convert_to_tensor(images.copy())
    crops = numpy(RandomResizedCrop(16, 16, seed=0)(given_images, training=True))
    assert len(np.unique(crops.reshape(64, -1).round(5), axis=0)) > 55
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(given_images), images)


def test_a_seed_repeats_and_a_configuration_survives():
    images = noise(4, 12, 10, 3)
    crop = RandomResizedCrop(5, 7, (0.3, 0.9), (0.5, 2), flip=True, seed=3)
    again = RandomResizedCrop.from_config(crop.get_config())
    first = numpy(crop(images, training=True))
    assert first.shape == (4, 5, 7, 3)
    np.testing.assert_array_equal(first, numpy(again(images, training=True)))
    assert not np.array_equal(first, numpy(crop(images, training=True)))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("height", 0),
        ("scale", (0, 1)),
        ("scale", (0.5, 1.5)),
        ("scale", 0.5),
        ("scale", (0.9, 0.1)),
        ("ratio", (0, 1)),
    ],
)
def test_arguments_out_of_range_are_named(argument, value):
    with pytest.raises(ValueError, match=f"Received: {argument}=.*Expected"):
        RandomResizedCrop(**{"height": 8, "width": 8, argument: value})


def test_images_of_another_rank_are_rejected():
    with pytest.raises(ValueError, match=r"Received: images of shape \(8, 8, 3\)"):
        RandomResizedCrop(8, 8)(np.zeros((8, 8, 3), "float32"), training=True)
