"""The augmentations of publications: their numbers, and what they do to images."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from pixels import noise

from instdisc_core.augmentation import (
    ColorJitter,
    Grayscale,
    RandomApply,
    RandomGaussianBlur,
    RandomResizedCrop,
    paper_augmentation,
    simclr_augmentation,
)

N, SIDE, SIZE = 64, 16, 20  # one shape of images for all tests, since JAX compiles for each


def same_photograph(n=N):
    """One image of smooth colors, n times, uint8."""
    ramp = np.linspace(40, 215, SIDE)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), axis=-1)
    return np.tile(image.astype("uint8"), (n, 1, 1, 1))


def described(layer):
    """What a layer does, and everything that it is set to."""
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
def test_the_paper_s_augmentation_has_the_numbers_of_its_code(size, flip):
    """ImageNet's is the default; CIFAR-10's has no flip."""
    augmenter = paper_augmentation(size) if flip else paper_augmentation(size, flip=False)
    assert [described(layer) for layer in augmenter.layers] == [
        TO_UNIT,
        ("crop", size, size, (0.2, 1.0), RATIOS, flip),
        SOMETIMES_GRAY,
        ("jitter", 0.4, 0.4, 0.4, 0.4),
        TO_PIXELS,
    ]


@pytest.mark.parametrize(
    ("size", "kernel_size"), [(224, 23), (32, 3), ((224, 40), 5), ((200, 8), 1)]
)
def test_simclr_s_augmentation_has_the_numbers_of_its_appendix(size, kernel_size):
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


def test_simclr_s_augmentation_for_cifar_10_is_half_as_strong_and_without_a_blur():
    augmenter = simclr_augmentation(32, strength=0.5, blur=False, scale=(0.2, 1.0), flip=False)
    assert [described(layer) for layer in augmenter.layers] == [
        TO_UNIT,
        ("crop", 32, 32, (0.2, 1.0), RATIOS, False),
        ("sometimes", 0.8, ("jitter", 0.4, 0.4, 0.4, 0.1)),
        SOMETIMES_GRAY,
        TO_PIXELS,
    ]


def test_simclr_s_augmentation_takes_colors_away_as_often_as_it_is_told():
    layers = simclr_augmentation(32, grayscale=0.0).layers
    assert ("sometimes", 0.0, SOMETIMES_GRAY[2]) in [described(layer) for layer in layers]
    with pytest.raises(ValueError, match=r"grayscale=1\.5"):
        simclr_augmentation(32, grayscale=1.5)


@pytest.mark.parametrize(("build", "count"), [(paper_augmentation, 3), (simclr_augmentation, 6)])
def test_every_layer_has_a_seed_of_its_own(build, count):
    layers = build(32, seed=0).layers
    layers += [layer.layer for layer in layers if isinstance(layer, RandomApply)]
    seeds = [layer.seed for layer in layers if hasattr(layer, "seed_generator")]
    assert len(seeds) == len(set(seeds)) == count
    assert None not in seeds


BUILDS = {
    "paper": lambda: paper_augmentation(SIZE, seed=3),
    "paper, no flip": lambda: paper_augmentation((SIZE, SIZE), flip=False, seed=3),
    "simclr": lambda: simclr_augmentation(SIZE, seed=3),
    "simclr, cifar": lambda: simclr_augmentation(SIZE, 0.5, blur=False, scale=(0.2, 1.0), seed=3),
}
both = pytest.mark.parametrize("name", ["paper", "simclr"])


@pytest.mark.parametrize("name", BUILDS)
def test_every_image_gets_its_own_pixels_in_range(name):
    augmenter = BUILDS[name]()
    images = same_photograph()
    before = images.copy()
    out = augmenter(images, training=True)
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    out = numpy(out)
    assert out.shape == (N, SIZE, SIZE, 3)
    assert np.array_equal(images, before), "the input is not written into"
    assert out.min() >= -1e-3
    assert out.max() <= 255 + 1e-3
    assert 60 < out.mean() < 190
    assert len(np.unique(out.mean(axis=(1, 2, 3)).round(3))) > 55, "one draw for several images"
    assert not np.array_equal(numpy(augmenter(images, training=True)), out)


@pytest.mark.parametrize("name", BUILDS)
def test_a_saved_or_rebuilt_augmentation_repeats_its_draws(name, tmp_path):
    images = same_photograph()
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), BUILDS[name]()])
    model.save(tmp_path / "augmenter.keras")
    (loaded,) = keras.saving.load_model(tmp_path / "augmenter.keras").layers
    rebuilt = keras.layers.Pipeline.from_config(BUILDS[name]().get_config())
    copies = [BUILDS[name](), rebuilt, loaded]
    first, second = ([numpy(one(images, training=True)) for one in copies] for _ in range(2))
    for out in (first, second):
        np.testing.assert_array_equal(out[1], out[0])
        np.testing.assert_array_equal(out[2], out[0])
    assert not np.array_equal(first[0], second[0])


@both
def test_float_images_are_not_written_into_either(name):
    images = keras.ops.convert_to_tensor(same_photograph().astype("float32"))
    before = numpy(images).copy()
    BUILDS[name]()(images, training=True)
    assert np.array_equal(numpy(images), before)


@both
def test_outside_training_images_are_only_resized(name):
    images = np.repeat(np.repeat(same_photograph(), 5, axis=1), 5, axis=2)[:, ::4, ::4]
    assert images.shape == (N, SIZE, SIZE, 3)
    np.testing.assert_allclose(numpy(BUILDS[name]()(images, training=False)), images, atol=1e-2)


@both
def test_it_augments_unless_told_otherwise(name):
    """As Keras's random layers, and Pipeline, do."""
    images = same_photograph()
    expected = numpy(BUILDS[name]()(images, training=True))
    np.testing.assert_array_equal(numpy(BUILDS[name]()(images)), expected)


def test_a_fifth_of_the_images_is_gray():
    images = same_photograph()
    images[..., 2] = 255 - images[..., 0]
    augmenter = paper_augmentation(SIZE, seed=1)
    out = np.concatenate([numpy(augmenter(images, training=True)) for _ in range(10)])
    gray = np.abs(out.max(axis=-1) - out.min(axis=-1)).max(axis=(1, 2)) < 0.5
    assert 0.13 < gray.mean() < 0.27


def test_the_border_does_not_get_darker():
    images = np.full((N, SIDE, SIDE, 3), 128, "uint8")
    out = numpy(simclr_augmentation(SIZE, strength=0, seed=0)(images, training=True))
    np.testing.assert_allclose(out, 128, atol=0.01)


def test_half_of_the_images_are_blurred():
    images = np.repeat(noise(N, SIZE, SIZE, 1), 3, axis=-1)
    layers = simclr_augmentation(SIZE, strength=0, seed=0).layers
    after_the_crop = keras.layers.Pipeline(layers[2:-1])
    out = np.stack([numpy(after_the_crop(images, training=True)) for _ in range(10)])
    changed = np.abs(out - images).max(axis=(2, 3, 4)) > 1e-3  # sigma=0.1 changes nothing visible
    assert 0.38 < changed.mean() < 0.58


class InTraining(keras.layers.Layer):
    """Augments in ``predict`` too, which compiles where the framework does."""

    def __init__(self, layer):
        super().__init__(dtype="float32")
        self.layer = layer

    def call(self, images):
        return self.layer(images, training=True)


def test_it_is_compiled_for_batches_of_any_length():
    augmenter = InTraining(simclr_augmentation(SIZE, seed=0))
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), augmenter])
    out = model.predict(same_photograph(50).astype("float32"), batch_size=20, verbose=0)
    assert out.shape == (50, SIZE, SIZE, 3)
    assert out.min() >= -1e-3
    assert out.max() <= 255 + 1e-3
    assert len(np.unique(out.mean(axis=(1, 2, 3)).round(3))) > 40


@both
def test_it_computes_in_float32_under_any_dtype_policy(name):
    images = keras.ops.convert_to_tensor(same_photograph().astype("float32") + 0.37)
    expected = numpy(BUILDS[name]()(images, training=True))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        rebuilt = keras.layers.Pipeline.from_config(BUILDS[name]().get_config())
        outputs = [one(images, training=True) for one in (BUILDS[name](), rebuilt)]
        inside = keras.Sequential([keras.Input((SIDE, SIDE, 3)), InTraining(BUILDS[name]())])
        outputs.append(inside(images))
    finally:
        keras.config.set_dtype_policy(before)
    for out in outputs:
        assert keras.backend.standardize_dtype(out.dtype) == "float32"
        np.testing.assert_array_equal(numpy(out), expected)
