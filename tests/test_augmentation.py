"""The random resized crop and the recipes: what they draw, and that every image gets its own."""

import colorsys

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.augmentation import (
    Chain,
    RandomApply,
    RandomResizedCrop,
    color_jitter,
    paper_augmentation,
    simclr_augmentation,
)
from instdisc_core.augmentation.random_resized_crop import _interpolation

RNG = np.random.default_rng(0)


def axis(start, length, pixels, outputs):
    one = keras.ops.convert_to_tensor(np.array([start, length], "float32"))
    return numpy(_interpolation(one[:1], one[1:], pixels, outputs))[0]


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_weights_are_those_of_pillow_s_resize(pixels, outputs, data):
    """Pillow resizes a crop by the same triangle; it is checked along one axis, pixel by pixel."""
    image = pytest.importorskip("PIL.Image")
    start = data.draw(st.integers(0, pixels - 1))
    length = data.draw(st.integers(1, pixels - start))
    weights = axis(start, length, pixels, outputs)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert np.all(weights[:, :start] == 0)
    assert np.all(weights[:, start + length :] == 0)
    line = RNG.random(pixels).astype("float32")
    cut = image.fromarray(line[None, start : start + length])
    expected = np.asarray(cut.resize((outputs, 1), image.Resampling.BILINEAR))[0]
    np.testing.assert_allclose(weights @ line, expected, atol=1e-5)


def test_out_of_training_images_are_resized_whole():
    images = RNG.random((3, 8, 8, 2)).astype("float32")
    crop = RandomResizedCrop(8, 8, flip=True, seed=0)
    np.testing.assert_allclose(numpy(crop(images)), images, atol=1e-6)
    assert crop(images[:1, :5]).shape == (1, 8, 8, 2)


def test_a_flip_mirrors_half_of_the_images_and_nothing_else():
    images = np.tile(RNG.random((1, 6, 9, 3)).astype("float32"), (400, 1, 1, 1))
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
    # Two samples of one distribution: Kolmogorov and Smirnov's distance at a level of 1 in 10,000.
    for one, other in zip(ours.T, theirs.T, strict=True):
        values = np.union1d(one, other)
        distance = max(abs(np.mean(one <= v) - np.mean(other <= v)) for v in values)
        assert distance < 2.23 * np.sqrt(2 / 4000)
    assert np.all(ours[:, :2] >= 0)
    assert np.all(ours[:, 0] + ours[:, 2] <= rows)
    assert np.all(ours[:, 1] + ours[:, 3] <= columns)


def test_every_image_gets_a_crop_of_its_own_and_its_input_stays():
    images = np.tile(RNG.random((1, 16, 16, 3)).astype("float32"), (64, 1, 1, 1))
    given_images = keras.ops.convert_to_tensor(images.copy())
    crops = numpy(RandomResizedCrop(16, 16, seed=0)(given_images, training=True))
    assert len(np.unique(crops.reshape(64, -1).round(5), axis=0)) > 55
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(given_images), images)


def test_a_seed_repeats_and_a_configuration_survives():
    images = RNG.random((4, 12, 10, 3)).astype("float32")
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


def test_images_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"Received: images of shape \(8, 8, 3\)"):
        RandomResizedCrop(8, 8)(np.zeros((8, 8, 3), "float32"), training=True)


# -- the recipes


def same_photograph(n, size=16):
    """One image of smooth colours, n times, uint8."""
    ramp = np.linspace(40, 215, size)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), axis=-1)
    return np.tile(image.astype("uint8"), (n, 1, 1, 1))


@pytest.mark.parametrize(
    "augmenter",
    [
        paper_augmentation(12, seed=0),
        paper_augmentation((12, 12), flip=False, seed=0),
        simclr_augmentation(12, seed=0),
        simclr_augmentation(12, strength=0.5, blur=False, seed=0),
    ],
)
def test_a_recipe_gives_every_image_its_own_pixels_in_range(augmenter):
    images = same_photograph(64)
    before = images.copy()
    out = augmenter(images, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    out = numpy(out)
    assert out.shape == (64, 12, 12, 3)
    assert np.array_equal(images, before), "the input is not written into"
    assert out.min() >= -1e-3
    assert out.max() <= 255 + 1e-3
    assert 60 < out.mean() < 190
    assert len(np.unique(out.mean(axis=(1, 2, 3)).round(3))) > 55, "one draw for several images"
    assert not np.array_equal(numpy(augmenter(images, training=True)), out)


def test_float_images_are_not_written_into_either():
    images = keras.ops.convert_to_tensor(same_photograph(8).astype("float32"))
    before = numpy(images).copy()
    simclr_augmentation(16, seed=0)(images, training=True)
    assert np.array_equal(numpy(images), before)


def test_out_of_training_a_recipe_only_resizes():
    images = same_photograph(4, 12)
    for augmenter in (paper_augmentation(12, seed=0), simclr_augmentation(12, seed=0)):
        np.testing.assert_allclose(numpy(augmenter(images, training=False)), images, atol=1e-2)


def test_a_fifth_of_the_images_is_gray():
    images = same_photograph(600)
    images[..., 2] = 255 - images[..., 0]
    out = numpy(paper_augmentation(8, seed=1)(images, training=True))
    gray = np.abs(out.max(axis=-1) - out.min(axis=-1)).max(axis=(1, 2)) < 0.5
    assert 0.13 < gray.mean() < 0.27


def channels(images):
    """Hue as a share of the circle, saturation and value, of the first pixel of each image."""
    return np.array([colorsys.rgb_to_hsv(*image[0, 0]) for image in numpy(images)]).T


@pytest.mark.parametrize(
    ("amounts", "channel", "low", "high"),
    [
        ((0, 0, 0.4, 0), 1, 0.6 * 0.5, 1.4 * 0.5),
        ((0, 0, 0, 0.1), 0, 0.5 - 0.1, 0.5 + 0.1),
        ((0.2, 0, 0, 0), 2, 0.6 - 0.2, 0.6 + 0.2),
    ],
)
def test_colours_change_by_the_amounts_that_were_asked_for(amounts, channel, low, high):
    colour = np.array(colorsys.hsv_to_rgb(0.5, 0.5, 0.6), "float32")
    images = np.tile(colour, (2000, 2, 2, 1))
    out = channels(Chain(color_jitter(*amounts, seed=0))(images, training=True))
    assert low - 1e-3 < out[channel].min() < low + 0.02 * (high - low) + 1e-3
    assert high - 0.02 * (high - low) - 1e-3 < out[channel].max() < high + 1e-3
    assert abs(out[channel].mean() - (low + high) / 2) < 0.1 * (high - low)


def test_contrast_is_about_the_mean():
    images = np.zeros((500, 4, 4, 3), "float32") + 0.5
    images[:, :2] += 0.1
    images[:, 2:] -= 0.1
    out = numpy(Chain(color_jitter(0, 0.5, 0, 0, seed=0))(images, training=True))
    factors = (out[:, 0, 0, 0] - out[:, 2, 0, 0]) / 0.2
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), 0.5, atol=1e-4)
    assert 0.5 - 1e-3 < factors.min() < 0.53
    assert 1.47 < factors.max() < 1.5 + 1e-3


def test_no_amount_is_no_layer():
    assert color_jitter(0, 0, 0, 0) == []
    assert len(color_jitter(0.1, 0, 0.1, 0)) == 2


class WritesIntoItsInput(keras.layers.Layer):
    """As some of Keras's layers do under PyTorch."""

    def call(self, images):
        if keras.backend.backend() == "torch":
            images += 1
            return images
        return images + 1


def test_apply_to_some_changes_some_and_leaves_the_others():
    images = np.zeros((1000, 2, 2, 1), "float32")
    out = numpy(RandomApply(WritesIntoItsInput(), 0.8, seed=0)(images, training=True))
    changed = out[:, 0, 0, 0]
    assert np.array_equal(out, np.broadcast_to(changed[:, None, None, None], out.shape))
    assert set(changed) == {0, 1}
    assert 0.75 < changed.mean() < 0.85
    assert np.array_equal(numpy(RandomApply(WritesIntoItsInput(), 0.8)(images)), images)


def test_a_recipe_is_saved_and_repeats_itself(tmp_path):
    images = same_photograph(4)
    augmenter = simclr_augmentation(8, seed=3)
    model = keras.Sequential([augmenter])
    model(images)
    model.save(tmp_path / "augmenter.keras")
    (loaded,) = keras.saving.load_model(tmp_path / "augmenter.keras").layers
    assert loaded(images, training=True).shape == (4, 8, 8, 3)
    first, second = (numpy(simclr_augmentation(8, seed=3)(images, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: simclr_augmentation(8, strength=-1), "strength=-1"),
        (lambda: color_jitter(2, 0, 0, 0), "brightness=2"),
        (lambda: color_jitter(0, 0, 0, 1.5), "hue=1.5"),
        (lambda: RandomApply(WritesIntoItsInput(), 1.5), "rate=1.5"),
        (lambda: paper_augmentation(0), "size=0"),
    ],
)
def test_amounts_out_of_range_are_named(build, name):
    with pytest.raises(ValueError, match=f"Received: {name}. Expected"):
        build()


@pytest.mark.parametrize("build", [paper_augmentation, simclr_augmentation])
def test_it_computes_in_float32_whatever_the_encoder_computes_in(build):
    images = keras.ops.convert_to_tensor(same_photograph(8).astype("float32") + 0.37)
    expected = numpy(build(8, seed=0)(images, training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        augmenter = build(8, seed=0)
        loaded = Chain.from_config(build(8, seed=0).get_config())
        outputs = [numpy(layer(images, training=True)) for layer in (augmenter, loaded)]
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(outputs[0], expected)
    assert keras.backend.standardize_dtype(loaded.compute_dtype) == "float32"
    assert np.abs(outputs[1] - np.round(outputs[1], -1)).max() > 0.5
