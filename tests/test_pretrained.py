"""Encoders that start from a file of weights."""

import types

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import InstanceDiscrimination, recipes
from instdisc_core.data import ImageArray
from instdisc_core.encoders import ApplicationPreprocessing, resnet
from instdisc_core.frozen_encoder import frozen
from instdisc_core.pretrained import (
    load_encoder,
    preprocessing_of,
    pretrained_encoder,
    require_image_size,
)
from instdisc_core.recipes.building import build_optimizer

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3)).astype("uint8")


def toy_network(include_top, weights, pooling, input_tensor=None, width=4):
    """As the functions of ``keras.applications``, on images of at least 4 pixels."""
    assert (include_top, weights, pooling) == (False, None, "avg"), "else Keras downloads"
    if input_tensor is None:
        input_tensor = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(width, 4, strides=2, padding="valid")(input_tensor)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("tanh")(x))
    return keras.Model(keras.utils.get_source_inputs(input_tensor)[0], x)


@pytest.fixture(autouse=True)
def applications(monkeypatch):
    """A small network among those of ``keras.applications``."""
    module = types.ModuleType("toy")
    module.Toy = toy_network
    module.preprocess_input = lambda x, data_format: (x / 255 - 0.5) * 4
    for name in ("toy", "Toy"):
        monkeypatch.setattr(keras.applications, name, getattr(module, name, module), raising=False)


def published(seed=0, **settings):
    """The network with weights of its own, none at its start."""
    network = toy_network(False, None, "avg", **settings)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.uniform(0.2, 1, w.shape) for w in network.get_weights()])
    return network


@pytest.mark.parametrize("name", ["network.weights.h5", "network.h5", "network.keras"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_features_are_those_of_the_published_network_on_its_preprocessing(tmp_path, name):
    """Of Keras's file of weights, and of the older format that published files have."""
    network = published(width=5)
    save = network.save_weights if "weights" in name else network.save
    save(tmp_path / name)
    encoder = pretrained_encoder("keras:Toy", tmp_path / name, size=8, width=5)
    expected = numpy(network((IMAGES / np.float32(255) - 0.5) * 4))
    np.testing.assert_allclose(numpy(encoder(IMAGES)), expected, rtol=1e-4, atol=1e-5)
    assert encoder.output_shape == (None, 5)


def test_nothing_is_loaded_where_no_file_is_named():
    encoder = pretrained_encoder("keras:Toy")
    assert np.all(encoder.layers[-4].get_weights()[1] == 0), "the bias of a new layer"


@pytest.mark.on_one_backend
def test_a_file_is_named_with_what_is_wrong_and_what_to_do(tmp_path):
    with pytest.raises(
        ValueError, match=r"no/such\.h5', which is no file\. Expected.*Nothing is d"
    ):
        pretrained_encoder("keras:Toy", "no/such.h5")
    (tmp_path / "text.h5").write_text("<html>404</html>")
    published(width=5).save_weights(tmp_path / "wide.weights.h5")
    resnet(10, (8, 8, 3), "patch", width=4).save_weights(tmp_path / "other.weights.h5")
    for name in ("text.h5", "wide.weights.h5", "other.weights.h5"):
        with pytest.raises(
            ValueError, match=rf"{name}', which do not fit encoder='keras:Toy' with "
        ):
            pretrained_encoder("keras:Toy", tmp_path / name, width=4)
    with pytest.raises(ValueError, match=r"without the top, whose name ends in notop or no_top"):
        load_encoder(resnet(10, (8, 8, 3), width=4), tmp_path / "wide.weights.h5")


def test_a_file_that_does_not_fit_leaves_the_encoder_as_it_was(tmp_path):
    def encoder(width):
        layers = keras.layers.Dense(4, name="first"), keras.layers.Dense(width, name="second")
        return keras.Sequential([keras.Input((3,)), *layers])

    encoder(9).save_weights(tmp_path / "wide.weights.h5")
    narrow = encoder(5)
    before = [w.copy() for w in narrow.get_weights()]
    with pytest.raises(ValueError, match="do not fit"):
        load_encoder(narrow, tmp_path / "wide.weights.h5")
    for weight, value in zip(narrow.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_networks_and_sizes_that_do_not_exist_are_named():
    for name in ("keras:toynet", "keras:toy", "keras:"):
        with pytest.raises(
            ValueError, match=rf"{name}'\. Expected a network of keras\.applications"
        ):
            pretrained_encoder(name)
    with pytest.raises(ValueError, match=r"encoder='caffe:\.\.\.'\. Expected 'keras:NAME'"):
        pretrained_encoder("caffe:alexnet")
    with pytest.raises(ValueError, match=r"images of 3 x 3 pixels, which encoder='keras:Toy' does"):
        pretrained_encoder("keras:Toy", size=3)
    require_image_size(pretrained_encoder("keras:Toy"), 4)


def test_a_setting_that_an_encoder_determines_is_rejected():
    for settings in ({"pooling": "max"}, {"include_top": True}):
        with pytest.raises(ValueError, match=rf"{next(iter(settings))}=.* of encoder='keras:Toy'"):
            pretrained_encoder("keras:Toy", width=4, **settings)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="it has those libraries")
def test_modules_of_pytorch_need_pytorch():
    with pytest.raises(ValueError, match=r"encoder='timm:\.\.\.' while Keras runs on"):
        pretrained_encoder("timm:resnet18")


def test_preprocessing_is_a_layer_that_is_saved_and_changes_no_image():
    layer = ApplicationPreprocessing("mobilenet_v2")
    pixels = keras.ops.convert_to_tensor(IMAGES.astype("float32"))
    np.testing.assert_allclose(numpy(layer(pixels)), IMAGES / 127.5 - 1, atol=1e-5)
    np.testing.assert_array_equal(numpy(pixels), IMAGES)
    again = ApplicationPreprocessing.from_config(layer.get_config())
    assert again.application == "mobilenet_v2"
    caffe = numpy(ApplicationPreprocessing("resnet")(IMAGES))
    expected = IMAGES[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(caffe, expected, atol=1e-3)


# -- without training


def test_features_of_a_frozen_encoder_are_embeddings_at_once(tmp_path):
    encoder = pretrained_encoder("keras:Toy")
    model = frozen(encoder)
    rows, features = model.predict(IMAGES, verbose=0), numpy(encoder(IMAGES))
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, features / lengths, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(IMAGES, verbose=0), rows, atol=1e-6)
    with pytest.raises(ValueError, match=r"unknown output\. Expected one with an output_shape"):
        frozen(keras.layers.Flatten())
    with pytest.raises(ValueError, match=r"an encoder 'function' of unknown output"):
        frozen(lambda images: images)


# -- in a recipe

SMALL = {
    "image_size": 9,
    "crop_size": 8,
    "batch_size": 6,
    "epochs": 2,
    "embedding_dim": 4,
    "dtype_policy": "float32",
    "encoder": "keras:Toy",
    "encoder_settings": (("width", 5),),
}
SOURCE = ImageArray(np.random.default_rng(1).integers(0, 256, (12, 9, 9, 3)).astype("uint8"))


def small(**changes):
    return recipes.get("small-cifar10", **{**SMALL, **changes})


@pytest.fixture
def file(tmp_path):
    """The weights of a published network."""
    path = tmp_path / "toy.weights.h5"
    published(width=5).save_weights(path)
    return path


def moved(model, start, part):
    """How far the trained weights of a part of a model are from those of another model."""
    pairs = zip(getattr(model, part).weights, getattr(start, part).weights, strict=True)
    return max(
        np.abs(numpy(ours) - numpy(theirs)).max()
        for ours, theirs in pairs
        if "moving" not in ours.path
    )


@pytest.mark.on_one_backend
def test_a_recipe_starts_from_the_file_and_continues_without_it(file, tmp_path, capsys):
    recipe = small(weights=str(file))
    start = recipe.build(12, seed=0)
    for ours, theirs in zip(
        start.encoder.get_weights(), published(width=5).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    whole = recipe.train(SOURCE, seed=0, verbose=0)
    recipe.train(SOURCE, tmp_path / "run", seed=0, epochs=1, verbose=2)
    printed = capsys.readouterr().out
    assert "  encoder: keras:Toy" in printed
    assert "pretrained encoder" in printed
    file.unlink()
    resumed = recipe.train(SOURCE, tmp_path / "run", seed=0, verbose=0)
    loaded = keras.saving.load_model(tmp_path / "run" / "model.keras")
    for a, b, c in zip(whole.weights, resumed.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
        np.testing.assert_array_equal(numpy(a), numpy(c))
    with pytest.raises(ValueError, match="which is no file"):
        recipe.train(SOURCE, tmp_path / "new", seed=0, verbose=0)


@pytest.mark.usefixtures("uncompiled")
def test_the_encoder_has_its_own_learning_rate(file, tmp_path):
    steady = {"optimizer": "sgd", "optimizer_momentum": 0.0, "learning_rate": 0.01}
    models = {}
    for rate in (1.0, 0.1, 0.0):
        recipe = small(weights=str(file), encoder_rate=rate, weight_decay=0.0, **steady)
        models[rate] = recipe.train(
            SOURCE, tmp_path / str(rate), seed=0, verbose=0, epochs=1, judge=False
        )
    start = small(weights=str(file)).build(12, seed=0)
    of_encoder = {rate: moved(model, start, "encoder") for rate, model in models.items()}
    assert of_encoder[0.0] == 0
    assert of_encoder[0.1] == pytest.approx(0.1 * of_encoder[1.0], rel=0.3)
    of_head = {rate: moved(model, start, "projector") for rate, model in models.items()}
    assert of_head[0.1] == pytest.approx(of_head[1.0], rel=0.3)
    assert of_head[0.0] > 0
    model = models[0.1]
    again = keras.saving.load_model(tmp_path / "0.1" / "model.keras")
    loaded, saved = again.optimizer, model.optimizer
    assert [type(o).__name__ for o in loaded.optimizers] == ["SGD", "SGD"]
    assert int(numpy(loaded.iterations)) == int(numpy(saved.iterations))
    again.fit(SOURCE.batches(6, 0), verbose=0)


def test_two_learning_rates_continue_where_they_stopped(file, tmp_path):
    recipe = small(weights=str(file), encoder_rate=0.2)
    whole = recipe.train(SOURCE, seed=0, verbose=0)
    recipe.train(SOURCE, tmp_path, seed=0, verbose=0, epochs=1, judge=False)
    resumed = recipe.train(SOURCE, tmp_path, seed=0, verbose=0, judge=False)
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))


def test_the_residual_network_starts_from_a_file_too(tmp_path):
    changes = {"encoder": "resnet", "encoder_settings": (), "width": 4}
    encoder = small(**changes).build(12, seed=3).encoder
    encoder.save_weights(tmp_path / "encoder.weights.h5")
    model = small(**changes, weights=str(tmp_path / "encoder.weights.h5")).build(12, seed=0)
    for ours, theirs in zip(model.encoder.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 3}, r"images of 3 x 3 pixels.*set the recipe's image_size and crop_size"),
        ({"encoder_rate": -1.0}, r"encoder_rate=-1\.0\. Expected a number in \[0, inf\)"),
        ({"encoder_rate": 0.5, "objective": "pic"}, r"encoder_rate=0\.5 and objective='pic'"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes).build(12)


def test_weights_of_one_name_in_encoder_and_head_are_named():
    encoder = pretrained_encoder("keras:Toy")
    convolution = next(x for x in encoder.layers if isinstance(x, keras.layers.Conv2D))
    head = keras.layers.Dense(4, name=convolution.name)
    model = InstanceDiscrimination(encoder, 12, 4, projector=head)
    model.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="weights of the same name"):
        build_optimizer(small(encoder_rate=0.5), 2, model)


# -- the networks themselves: built on one framework


@pytest.mark.on_one_backend
def test_a_network_of_keras_applications(tmp_path):
    """MobileNet, its file, and the model that is trained from it."""
    settings = {"alpha": 0.25}
    network = keras.applications.MobileNet(
        **settings, include_top=False, weights=None, pooling="avg"
    )
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    file = tmp_path / "mobilenet.weights.h5"
    encoder = pretrained_encoder("keras:MobileNet", file, size=32, **settings)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("uint8")
    expected = numpy(network(images / np.float32(127.5) - 1))
    np.testing.assert_allclose(numpy(encoder(images)), expected, rtol=1e-3, atol=1e-5)
    model = InstanceDiscrimination(encoder, 4, 8, "non_parametric_softmax", seed=0)
    model.compile(optimizer="sgd")
    model.fit(images, np.arange(4), verbose=0)
    file.unlink()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(images), model.predict(images))


@pytest.mark.on_one_backend
def test_published_efficient_nets_are_scaled_as_keras_does(tmp_path):
    """Their files have ImageNet's deviation as the variance; ours, and others, stay as they are."""
    network = keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg")
    layer = next(x for x in network.layers if isinstance(x, keras.layers.Normalization))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    layer.set_weights([mean, deviation, np.zeros(())])
    network.save_weights(tmp_path / "published.weights.h5")
    encoder = pretrained_encoder("keras:EfficientNetB0", tmp_path / "published.weights.h5")
    normalization = next(x for x in encoder.layers if isinstance(x, keras.layers.Normalization))
    pixels = IMAGES / np.float32(255)
    expected = (pixels - mean) / deviation
    np.testing.assert_allclose(numpy(normalization(pixels)), expected, atol=1e-5)
    encoder.save_weights(tmp_path / "ours.weights.h5")
    again = pretrained_encoder("keras:EfficientNetB0", tmp_path / "ours.weights.h5")
    for ours, theirs in zip(again.get_weights(), encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.on_one_backend
def test_every_network_of_keras_applications_has_its_preprocessing():
    names = [name for name, thing in vars(keras.applications).items() if callable(thing)]
    names.remove("Toy")
    assert len(names) > 30
    for name in names:
        module = getattr(keras.applications, preprocessing_of(name))
        assert hasattr(module, name) or preprocessing_of(name) == "mobilenet_v3"
        assert hasattr(module, "preprocess_input")
