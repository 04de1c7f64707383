"""Crop, color jitter, blur and recipes: what they draw, and that each image gets its own draw."""

import colorsys
import itertools

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.augmentation import (
    ColorJitter,
    Grayscale,
    RandomApply,
    RandomGaussianBlur,
    RandomResizedCrop,
    paper_augmentation,
    simclr_augmentation,
)
from instdisc_core.augmentation.random_resized_crop import _interpolation


def noise(*shape, seed=0):
    """Random pixels in [0, 1), float32."""
    return np.random.default_rng(seed).random(shape).astype("float32")


def assert_same_distribution(one, other, false_alarms):
    """Two samples of one distribution: Kolmogorov and Smirnov's distance at this level."""
    values = np.union1d(one, other)
    shares = (np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (one, other))
    distance = np.max(np.abs(np.subtract(*shares)))
    bound = np.sqrt(-np.log(false_alarms / 2) / 2) * np.sqrt(1 / len(one) + 1 / len(other))
    assert distance < bound, (distance, bound)


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
    line = noise(pixels, seed=data.draw(st.integers(0, 2**32 - 1)))
    cut = image.fromarray(line[None, start : start + length])
    expected = np.asarray(cut.resize((outputs, 1), image.Resampling.BILINEAR))[0]
    np.testing.assert_allclose(weights @ line, expected, atol=1e-5)


def test_out_of_training_images_are_resized_whole():
    images = noise(3, 8, 8, 2)
    crop = RandomResizedCrop(8, 8, flip=True, seed=0)
    np.testing.assert_allclose(numpy(crop(images)), images, atol=1e-6)
    assert crop(images[:1, :5]).shape == (1, 8, 8, 2)


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


# -- color jitter, against the formulas that torchvision documents

GRAY = np.array([0.299, 0.587, 0.114])
PAPER, SIMCLR = (0.4, 0.4, 0.4, 0.4), (0.8, 0.8, 0.8, 0.2)
to_hsv, to_rgb = np.vectorize(colorsys.rgb_to_hsv), np.vectorize(colorsys.hsv_to_rgb)


def turned(image, turn):
    hue, saturation, value = to_hsv(*np.moveaxis(image, -1, 0))
    return np.stack(to_rgb((hue + turn) % 1, saturation, value), axis=-1)


CHANGES = (
    lambda image, factor: np.clip(factor * image, 0, 1),
    lambda image, factor: np.clip(factor * image + (1 - factor) * np.mean(image @ GRAY), 0, 1),
    lambda image, factor: np.clip(factor * image + (1 - factor) * (image @ GRAY)[..., None], 0, 1),
    turned,
)


def jittered(rng, image, amounts):
    """One image, by the four changes in a random order."""
    for change in rng.permutation(4):
        low, high = max(0, 1 - amounts[change]), 1 + amounts[change]
        if change == 3:
            low, high = -amounts[change], amounts[change]
        image = CHANGES[change](image, rng.uniform(low, high))
    return image


def colorful(n, size=4):
    """Random colors, and among them the ones at which a formula changes its branch."""
    images = np.random.default_rng(0).random((n, size, size, 3))
    images[:, 0, 0], images[:, 0, 1] = 0, 1
    images[:, 0, 2], images[:, 0, 3] = [1, 0, 0], [0.5, 0.5, 0.2]
    images[0], images[1] = images[0, ..., :1], 0.25
    return images.astype("float32")


@pytest.mark.parametrize("amounts", [PAPER, SIMCLR, (3, 3, 3, 0.5)])
def test_given_its_draw_a_jittered_image_is_that_of_the_formulas(amounts):
    images = colorful(300)
    changes = ColorJitter(*amounts, seed=5).draw(300)
    factors, turns = numpy(changes.factors), numpy(changes.turn)
    orders = np.argsort(numpy(changes.places), axis=1)
    expected = images.astype("float64")
    for i, order in enumerate(orders):
        for change in order:
            value = turns[i] if change == 3 else factors[i, change]
            expected[i] = CHANGES[change](expected[i], value)
    out = numpy(ColorJitter(*amounts, seed=5)(images, training=True))
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert len(np.unique(orders, axis=0)) == 24


def test_each_order_is_as_likely_as_the_others():
    places = numpy(ColorJitter(*PAPER, seed=0).draw(4800).places)
    orders, counts = np.unique(places, axis=0, return_counts=True)
    assert {tuple(order) for order in orders} == set(itertools.permutations(range(4)))
    assert np.max(np.abs(counts - 200)) < 6 * np.sqrt(200)


def test_the_amounts_and_the_order_of_the_changes_are_independent():
    changes = ColorJitter(*PAPER, seed=0).draw(4800)
    drawn = (changes.factors, changes.turn[:, None], changes.places)
    correlations = np.corrcoef(np.concatenate([numpy(part) for part in drawn], axis=1).T)
    correlations[4:, 4:] += 1 / 3  # of two places: no two changes have the same
    assert np.max(np.abs(correlations[~np.eye(8, dtype=bool)])) < 6 / np.sqrt(4800)


@pytest.mark.parametrize(
    "amounts",
    [
        (0.4, 0, 0, 0),
        (0, 0.4, 0, 0),
        (0, 0, 0.4, 0),
        (0, 0, 0, 0.4),
        (1.5, 0, 0, 0),
        PAPER,
        SIMCLR,
    ],
)
def test_colors_are_distributed_as_torchvision_s(amounts):
    n, rng = 1500, np.random.default_rng(1)
    image = rng.random((4, 4, 3)) * [0.9, 0.5, 0.7]
    images = np.tile(image.astype("float32"), (n, 1, 1, 1))
    ours = numpy(ColorJitter(*amounts, seed=0)(images, training=True))
    theirs = np.stack([jittered(rng, image, amounts) for _ in range(n)])
    for channel in range(3):
        one, other = (out[..., channel] - image[..., channel] for out in (ours, theirs))
        for statistic in (lambda x: np.mean(np.abs(x), axis=(1, 2)), lambda x: x.mean(axis=(1, 2))):
            assert_same_distribution(statistic(one), statistic(other), false_alarms=1e-6)


def channels(images):
    """Hue as a share of the circle, chroma and value, of the first pixel of each image."""
    pixels = numpy(images)[:, 0, 0]
    hues = [colorsys.rgb_to_hsv(*pixel)[0] for pixel in pixels]
    return np.array([hues, pixels.max(axis=1) - pixels.min(axis=1), pixels.max(axis=1)])


@pytest.mark.parametrize(
    ("amounts", "channel", "low", "high"),
    [
        ((0, 0, 0.4, 0), 1, 0.6 * 0.3, 1.4 * 0.3),
        ((0, 0, 0, 0.1), 0, 0.5 - 0.1, 0.5 + 0.1),
        ((0.2, 0, 0, 0), 2, 0.8 * 0.6, 1.2 * 0.6),
    ],
)
def test_colors_change_by_the_amounts_that_were_asked_for(amounts, channel, low, high):
    color = np.array(colorsys.hsv_to_rgb(0.5, 0.5, 0.6), "float32")
    images = np.tile(color, (2000, 2, 2, 1))
    out = channels(ColorJitter(*amounts, seed=0)(images, training=True))
    assert low - 1e-3 < out[channel].min() < low + 0.02 * (high - low) + 1e-3
    assert high - 0.02 * (high - low) - 1e-3 < out[channel].max() < high + 1e-3
    assert abs(out[channel].mean() - (low + high) / 2) < 0.1 * (high - low)


def test_contrast_is_about_the_mean():
    images = np.zeros((500, 4, 4, 3), "float32") + 0.5
    images[:, :2] += 0.1
    images[:, 2:] -= 0.1
    out = numpy(ColorJitter(contrast=0.5, seed=0)(images, training=True))
    factors = (out[:, 0, 0, 0] - out[:, 2, 0, 0]) / 0.2
    np.testing.assert_allclose(out.mean(axis=(1, 2, 3)), 0.5, atol=1e-4)
    assert 0.5 - 1e-3 < factors.min() < 0.53
    assert 1.47 < factors.max() < 1.5 + 1e-3


def test_no_amount_and_no_training_change_nothing():
    images = colorful(20)
    np.testing.assert_allclose(numpy(ColorJitter(seed=0)(images, training=True)), images, atol=1e-5)
    np.testing.assert_array_equal(numpy(ColorJitter(*PAPER)(images)), images)


def test_gray_is_the_weighted_mean_of_the_channels():
    images = colorful(5)
    expected = np.repeat((images @ GRAY)[..., None], 3, axis=-1)
    np.testing.assert_allclose(numpy(Grayscale()(images)), expected, atol=1e-6)


# -- blur


def blurred(image, sigma, kernel_size):
    """One image, by a sum over the window of each pixel of the reflected image."""
    radius = kernel_size // 2
    line = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, axis=(0, 1))
    return np.einsum("ijcab,ab->ijc", windows, kernel)


@pytest.mark.parametrize(("rows", "columns", "kernel_size"), [(9, 7, 5), (4, 12, 7), (5, 5, 1)])
def test_a_blur_is_that_of_the_reflected_image(rows, columns, kernel_size):
    images = noise(30, rows, columns, 2)
    sigmas = numpy(RandomGaussianBlur(kernel_size, seed=2).draw(30))
    out = numpy(RandomGaussianBlur(kernel_size, seed=2)(images, training=True))
    for image, sigma, result in zip(images, sigmas, out, strict=True):
        np.testing.assert_allclose(result, blurred(image, sigma, kernel_size), atol=1e-5)
    assert len(np.unique(sigmas)) == 30


def test_a_constant_image_stays_constant_to_the_corner():
    images = np.full((20, 12, 9, 3), 0.5, "float32")
    out = numpy(RandomGaussianBlur(11, (0.5, 5.0), seed=0)(images, training=True))
    np.testing.assert_allclose(out, 0.5, atol=1e-5)


def test_sigmas_are_uniform():
    sigmas = numpy(RandomGaussianBlur(3, (0.5, 1.5), seed=0).draw(4000))
    expected = np.random.default_rng(1).uniform(0.5, 1.5, 4000)
    assert_same_distribution(sigmas, expected, false_alarms=1e-6)


def test_out_of_training_nothing_is_blurred():
    images = noise(2, 5, 5, 3)
    np.testing.assert_array_equal(numpy(RandomGaussianBlur(3)(images)), images)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (ColorJitter(0.4), (2, 8, 8, 1), r"shape \(2, 8, 8, 1\). Expected \(batch, .*, 3\)"),
        (Grayscale(), (2, 8, 8, 4), r"shape \(2, 8, 8, 4\). Expected \(batch, .*, 3\)"),
        (RandomGaussianBlur(7), (2, 8, 3, 3), "8 x 3 pixels, kernel_size=7. Expected at least 4"),
    ],
)
def test_images_that_a_layer_cannot_take_are_named(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, "float32"), training=True)


@pytest.mark.parametrize("training", [True, False])
def test_integer_pixels_are_not_taken_for_the_unit_interval(training):
    with pytest.raises(ValueError, match=r"images of dtype uint8\. Expected floating-point"):
        ColorJitter(0.4)(np.zeros((2, 8, 8, 3), "uint8"), training=training)


def test_integer_pixels_are_blurred():
    images = (255 * noise(30, 9, 7, 2)).astype("uint8")
    for training in (True, False):
        outputs = [
            RandomGaussianBlur(5, seed=2)(pixels, training=training)
            for pixels in (images, images.astype("float32"))
        ]
        assert [keras.backend.standardize_dtype(out.dtype) for out in outputs] == ["float32"] * 2
        np.testing.assert_array_equal(*map(numpy, outputs))


@pytest.mark.parametrize("layer", [ColorJitter(*PAPER), Grayscale(), RandomGaussianBlur(3)])
def test_a_layer_does_not_write_into_its_input(layer):
    images = keras.ops.convert_to_tensor(colorful(8))
    before = numpy(images).copy()
    layer(images, training=True)
    np.testing.assert_array_equal(numpy(images), before)


# -- layers on some of the images


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


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, True, "1"])
def test_a_seed_that_no_backend_takes_is_rejected_at_once(seed):
    with pytest.raises(ValueError, match=f"Received: seed={seed!r}. Expected"):
        RandomResizedCrop(8, 8, seed=seed)


def test_a_seed_may_be_an_integer_of_numpy():
    for seed in (3, 2**31 - 1):
        layers = ColorJitter(0.4, seed=np.int64(seed)), ColorJitter(0.4, seed=seed)
        assert type(layers[0].seed) is int
        np.testing.assert_array_equal(*(numpy(layer.draw(9).factors) for layer in layers))


# -- the recipes


def same_photograph(n, size=16):
    """One image of smooth colors, n times, uint8."""
    ramp = np.linspace(40, 215, size)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), axis=-1)
    return np.tile(image.astype("uint8"), (n, 1, 1, 1))


def described(layer):
    """What a layer of a recipe does, and everything that it is set to."""
    if isinstance(layer, RandomApply):
        return ("sometimes", layer.rate, described(layer.layer))
    if isinstance(layer, RandomResizedCrop):
        return ("crop", layer.height, layer.width, layer.scale, layer.ratio, layer.flip)
    if isinstance(layer, ColorJitter):
        return ("jitter", *(round(amount, 9) for amount in layer.amounts.values()))
    if isinstance(layer, RandomGaussianBlur):
        return ("blur", layer.kernel_size, layer.sigma)
    if isinstance(layer, keras.layers.Rescaling):
        return ("times", layer.scale, layer.offset)
    assert isinstance(layer, Grayscale)
    return ("gray",)


RATIOS = (3 / 4, 4 / 3)
TO_UNIT, TO_PIXELS = ("times", 1 / 255, 0.0), ("times", 255, 0.0)
SOMETIMES_GRAY = ("sometimes", 0.2, ("gray",))


@pytest.mark.parametrize(("size", "flip"), [(224, True), (32, False)])
def test_the_paper_s_recipe_has_the_numbers_of_its_code(size, flip):
    """ImageNet's is the default; CIFAR-10's has no flip."""
    recipe = paper_augmentation(size) if flip else paper_augmentation(size, flip=False)
    assert [described(layer) for layer in recipe.layers] == [
        TO_UNIT,
        ("crop", size, size, (0.2, 1.0), RATIOS, flip),
        SOMETIMES_GRAY,
        ("jitter", 0.4, 0.4, 0.4, 0.4),
        TO_PIXELS,
    ]


@pytest.mark.parametrize(
    ("size", "kernel_size"), [(224, 23), (32, 3), ((224, 40), 5), ((200, 8), 1)]
)
def test_simclr_s_recipe_has_the_numbers_of_its_appendix(size, kernel_size):
    """The blur is as wide as a tenth of the smaller side, and so never wider than the image."""
    height, width = size if isinstance(size, tuple) else (size, size)
    assert [described(layer) for layer in simclr_augmentation(size).layers] == [
        TO_UNIT,
        ("crop", height, width, (0.08, 1.0), RATIOS, True),
        ("sometimes", 0.8, ("jitter", 0.8, 0.8, 0.8, 0.2)),
        SOMETIMES_GRAY,
        ("sometimes", 0.5, ("blur", kernel_size, (0.1, 2.0))),
        TO_PIXELS,
    ]


def test_simclr_s_recipe_for_cifar_10_is_half_as_strong_and_without_a_blur():
    recipe = simclr_augmentation(32, strength=0.5, blur=False, scale=(0.2, 1.0))
    assert [described(layer) for layer in recipe.layers] == [
        TO_UNIT,
        ("crop", 32, 32, (0.2, 1.0), RATIOS, True),
        ("sometimes", 0.8, ("jitter", 0.4, 0.4, 0.4, 0.1)),
        SOMETIMES_GRAY,
        TO_PIXELS,
    ]


@pytest.mark.parametrize(("build", "count"), [(paper_augmentation, 3), (simclr_augmentation, 6)])
def test_every_layer_of_a_recipe_has_a_seed_of_its_own(build, count):
    layers = build(32, seed=0).layers
    layers += [layer.layer for layer in layers if isinstance(layer, RandomApply)]
    seeds = [layer.seed for layer in layers if hasattr(layer, "seed_generator")]
    assert len(seeds) == len(set(seeds)) == count
    assert None not in seeds


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


@pytest.mark.parametrize(
    "build",
    [
        lambda: paper_augmentation(24, seed=3),
        lambda: simclr_augmentation(24, seed=3),
        lambda: simclr_augmentation(24, strength=0.5, blur=False, scale=(0.2, 1.0), seed=3),
    ],
)
def test_a_recipe_is_saved_and_repeats_itself(build, tmp_path):
    images = same_photograph(16)
    model = keras.Sequential([build()])
    model(images)
    model.save(tmp_path / "augmenter.keras")
    (loaded,) = keras.saving.load_model(tmp_path / "augmenter.keras").layers
    rebuilt = keras.layers.Pipeline.from_config(build().get_config())
    copies = [build(), rebuilt, loaded]
    first, second = ([numpy(one(images, training=True)) for one in copies] for _ in range(2))
    assert first[0].shape == (16, 24, 24, 3)
    for out in (first, second):
        np.testing.assert_array_equal(out[1], out[0])
        np.testing.assert_array_equal(out[2], out[0])
    assert not np.array_equal(first[0], second[0])


def test_a_recipe_does_not_darken_the_border():
    images = np.full((64, 40, 40, 3), 128, "uint8")
    out = numpy(simclr_augmentation(40, strength=0, seed=0)(images, training=True))
    np.testing.assert_allclose(out, 128, atol=0.01)


def test_half_of_the_images_are_blurred():
    images = np.repeat(noise(600, 40, 40, 1), 3, axis=-1)
    after_the_crop = keras.layers.Pipeline(simclr_augmentation(40, strength=0, seed=0).layers[2:-1])
    out = numpy(after_the_crop(images, training=True))
    changed = np.abs(out - images).max(axis=(1, 2, 3)) > 1e-3  # sigma=0.1 changes nothing visible
    assert 0.38 < changed.mean() < 0.58


class InTraining(keras.layers.Layer):
    """Augments in ``predict`` too, which compiles where the framework does."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.layer = layer

    def call(self, images):
        return self.layer(images, training=True)


def test_a_recipe_is_compiled_for_batches_of_any_length():
    augmenter = InTraining(simclr_augmentation(24, seed=0))
    model = keras.Sequential([keras.Input((16, 16, 3)), augmenter])
    out = model.predict(same_photograph(50).astype("float32"), batch_size=20, verbose=0)
    assert out.shape == (50, 24, 24, 3)
    assert out.min() >= -1e-3
    assert out.max() <= 255 + 1e-3
    assert len(np.unique(out.mean(axis=(1, 2, 3)).round(3))) > 40


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: simclr_augmentation(8, strength=-1), "strength=-1"),
        (lambda: simclr_augmentation(8, strength=3), "strength=3"),
        (lambda: ColorJitter(brightness=-1), "brightness=-1"),
        (lambda: ColorJitter(contrast=-1), "contrast=-1"),
        (lambda: ColorJitter(saturation=np.inf), "saturation=inf"),
        (lambda: ColorJitter(hue=0.6), "hue=0.6"),
        (lambda: RandomGaussianBlur(4), "kernel_size=4"),
        (lambda: RandomGaussianBlur(3, (0.0, 1.0)), "sigma=0.0"),
        (lambda: RandomGaussianBlur(3, (2.0, 1.0)), r"sigma=\(2.0, 1.0\)"),
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
    expected = numpy(build(24, seed=0)(images, training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        augmenter = build(24, seed=0)
        loaded = keras.layers.Pipeline.from_config(build(24, seed=0).get_config())
        outputs = [numpy(layer(images, training=True)) for layer in (augmenter, loaded)]
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(outputs[0], expected)
    np.testing.assert_array_equal(outputs[1], expected)
    assert keras.backend.standardize_dtype(loaded.compute_dtype) == "float32"


@pytest.mark.parametrize(
    "build",
    [
        lambda: ColorJitter(0.1, 0.2, 0.3, 0.4, seed=1),
        lambda: Grayscale(),
        lambda: RandomGaussianBlur(3, (0.5, 1.0), seed=1),
        lambda: RandomApply(RandomGaussianBlur(5, seed=1), 0.5, seed=2),
    ],
)
def test_a_layer_computes_in_float32_and_its_configuration_survives(build):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = build()
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        outputs = [one(colorful(8), training=True) for one in (layer, again)]
    finally:
        keras.config.set_dtype_policy(before)
    assert again.get_config() == layer.get_config()
    assert [keras.backend.standardize_dtype(out.dtype) for out in outputs] == ["float32"] * 2
    np.testing.assert_array_equal(*map(numpy, outputs))
