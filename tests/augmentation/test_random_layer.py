"""What the layers share: seeds, checks, float32, configurations, inputs that do not change."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from pixels import GRAY, colorful

from instdisc_core.augmentation import (
    ColorJitter,
    Grayscale,
    RandomApply,
    RandomGaussianBlur,
    RandomResizedCrop,
    paper_augmentation,
    simclr_augmentation,
)

LAYERS = {
    "jitter": lambda: ColorJitter(0.1, 0.2, 0.3, 0.4, seed=1),
    "gray": lambda: Grayscale(),
    "blur": lambda: RandomGaussianBlur(3, (0.5, 1.0), seed=1),
    "some": lambda: RandomApply(RandomGaussianBlur(3, seed=1), 0.5, seed=2),
}


@pytest.mark.parametrize("seed", [-1, 2**31, 1.0, True, "1"])
def test_a_seed_that_no_backend_takes_is_rejected_at_once(seed):
    with pytest.raises(ValueError, match=f"Received: seed={seed!r}. Expected"):
        RandomResizedCrop(8, 8, seed=seed)


def test_a_seed_may_be_an_integer_of_numpy():
    for seed in (3, 2**31 - 1):
        layers = ColorJitter(0.4, seed=np.int64(seed)), ColorJitter(0.4, seed=seed)
        assert type(layers[0].seed) is int
        np.testing.assert_array_equal(*(numpy(layer.draw(9).factors) for layer in layers))


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


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_does_not_write_into_its_input(name):
    images = keras.ops.convert_to_tensor(colorful(8, 4))
    before = numpy(images).copy()
    LAYERS[name]()(images, training=True)
    np.testing.assert_array_equal(numpy(images), before)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_in_float32_and_its_configuration_survives(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = LAYERS[name]()
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        outputs = [one(colorful(8, 4), training=True) for one in (layer, again)]
    finally:
        keras.config.set_dtype_policy(before)
    assert again.get_config() == layer.get_config()
    assert [keras.backend.standardize_dtype(out.dtype) for out in outputs] == ["float32"] * 2
    np.testing.assert_array_equal(*map(numpy, outputs))


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
        (lambda: RandomApply(Grayscale(), 1.5), "rate=1.5"),
        (lambda: paper_augmentation(0), "size=0"),
    ],
)
def test_amounts_out_of_range_are_named(build, name):
    with pytest.raises(ValueError, match=f"Received: {name}. Expected"):
        build()


def test_gray_is_the_weighted_mean_of_the_channels():
    images = colorful(8, 4)
    expected = np.repeat((images @ GRAY)[..., None], 3, axis=-1)
    np.testing.assert_allclose(numpy(Grayscale()(images)), expected, atol=1e-6)
