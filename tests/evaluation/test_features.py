"""The features that are evaluated."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from differentiation import numpy
from problems import colors, small_encoder

from instdisc_core import InstanceDiscrimination
from instdisc_core.evaluation.features import (
    embeddings,
    encoder_features,
    pixels,
    stage_features,
    stage_names,
    unit,
)

pytestmark = pytest.mark.usefixtures("uncompiled")


def test_the_stages_are_those_that_the_encoder_has(model):
    assert stage_names(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    layers = [model.encoder.get_layer("conv3"), model.encoder.get_layer("conv1")]
    assert stage_names(SimpleNamespace(encoder=SimpleNamespace(layers=layers))) == [
        "conv1",
        "conv3",
    ]
    assert stage_names(SimpleNamespace(encoder=None)) == []


def test_stage_features_are_the_averaged_maps(model):
    source = colors()
    layer = keras.Model(model.encoder.input, model.encoder.get_layer("conv2").output)
    maps = numpy(layer(source.images().astype("float32")))  # 16 x 16 x 4
    whole = stage_features(model, source, "conv2", max_features=1024)
    np.testing.assert_allclose(whole, maps.reshape(24, -1), rtol=1e-4, atol=1e-5)
    quarters = maps.reshape(24, 4, 4, 4, 4, 4).mean(axis=(2, 4))
    pooled = stage_features(model, source, "conv2", max_features=64)
    np.testing.assert_allclose(pooled, quarters.reshape(24, -1), rtol=1e-4, atol=1e-5)
    uneven = stage_features(model, source, "conv2", max_features=4 * 9)  # squares of 6 out of 16
    np.testing.assert_allclose(
        uneven[:, -4:], maps[:, 11:, 11:].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"stage='conv9'\. Expected the name of one of"):
        stage_features(model, source, "conv9")
    with pytest.raises(ValueError, match="max_features=3"):
        stage_features(model, source, "conv2", max_features=3)


def test_encoder_features_are_those_of_the_encoder(model):
    source = colors()
    expected = numpy(model.encoder(source.images().astype("float32"), training=False))
    np.testing.assert_allclose(encoder_features(model, source, 7), expected, rtol=1e-4, atol=1e-5)


def test_the_encoder_sees_preprocessed_images():
    source, halved = colors(), keras.layers.Rescaling(0.5)
    model = InstanceDiscrimination(small_encoder(), 24, 8, preprocessing=halved, seed=0)
    images = source.images().astype("float32") / 2
    expected = numpy(model.encoder(images, training=False))
    np.testing.assert_allclose(encoder_features(model, source), expected, rtol=1e-4, atol=1e-5)
    layer = keras.Model(model.encoder.input, model.encoder.get_layer("conv3").output)
    stage = stage_features(model, source, "conv3")
    np.testing.assert_allclose(stage, numpy(layer(images)).reshape(24, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.on_one_backend
def test_pixels_are_centered_unit_rows():
    source = colors()
    rows, mean = pixels(source)
    flat = source.images().reshape(24, -1).astype("float64")
    centered = flat - flat.mean(axis=0)
    expected = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5)
    assert np.array_equal(unit(np.zeros((1, 3))), np.zeros((1, 3)))


def test_embeddings_are_those_of_predict(model):
    source = colors()
    np.testing.assert_allclose(
        embeddings(model, source, 7), model.predict(source.images(), verbose=0), atol=1e-4
    )


def test_unit_rows_of_half_precision_and_of_any_length():
    rows = np.array([[3, 4], [0, 0]])
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(unit(rows.astype("float16")), [[0.6, 0.8], [0, 0]], rtol=1e-3)
    np.testing.assert_allclose(unit(1e-20 * rows), [[0.6, 0.8], [0, 0]])
    assert np.linalg.norm(unit(np.full((1, 512), 20, "float16")).astype("float32")) > 0.99
