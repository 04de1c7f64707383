"""The residual networks are the published ones."""

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import InstanceDiscrimination
from instdisc_core.encoders import resnet, resnet18, resnet50


@pytest.fixture
def no_draws(monkeypatch):
    """Weights of 0, where only their shapes matter: JAX compiles a draw for every shape."""

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)


# torchvision's resnet18 and resnet50 have 11,689,512 and 25,557,032 parameters with their
# classifiers for 1000 classes, (512 + 1) * 1000 and (2048 + 1) * 1000 of them.
@pytest.mark.parametrize(
    ("build", "parameters", "features"),
    [(resnet18, 11_689_512 - 513_000, 512), (resnet50, 25_557_032 - 2_049_000, 2048)],
)
@pytest.mark.usefixtures("no_draws")
def test_parameters_are_those_of_the_published_network(build, parameters, features):
    encoder = build((224, 224, 3))
    assert sum(np.prod(w.shape) for w in encoder.trainable_weights) == parameters
    assert encoder.output_shape == (None, features)
    sizes = [encoder.get_layer(f"conv{i}").output.shape[1] for i in range(1, 6)]
    assert sizes == [112, 56, 28, 14, 7]


@pytest.mark.usefixtures("no_draws")
def test_the_stem_for_cifar_keeps_the_resolution():
    encoder = resnet18((32, 32, 3), stem="cifar")
    weights = sum(np.prod(w.shape) for w in encoder.trainable_weights)
    assert weights == 11_689_512 - 513_000 - 64 * 3 * (7 * 7 - 3 * 3)
    sizes = [encoder.get_layer(f"conv{i}").output.shape[1] for i in range(1, 6)]
    assert sizes == [32, 32, 16, 8, 4]


@pytest.mark.usefixtures("no_draws")
def test_statistics_follow_the_batch_by_a_tenth():
    encoder = resnet(10, (16, 16, 3), "cifar", width=8)
    layer = next(x for x in encoder.layers if isinstance(x, keras.layers.BatchNormalization))
    convolution = keras.Model(encoder.input, layer.input)
    rng = np.random.default_rng(0)
    convolution.set_weights([rng.standard_normal(w.shape) for w in convolution.weights])
    images = rng.uniform(size=(4, 16, 16, 3)).astype("float32")
    keras.Model(encoder.input, layer.output)(images, training=True)
    mean = numpy(convolution(images)).mean(axis=(0, 1, 2))
    assert np.abs(mean).min() > 0.01
    np.testing.assert_allclose(numpy(layer.moving_mean), 0.1 * mean, atol=1e-5)
    assert layer.epsilon == 1e-5


@pytest.mark.usefixtures("no_draws")
def test_no_convolution_writes_outside_its_memory():
    """One that skips pixels, of fewer channels than oneDNN takes at a time, does in training."""
    encoder = resnet(18, (32, 32, 3), "cifar", width=4)
    convolutions = [x for x in encoder.layers if isinstance(x, keras.layers.Conv2D)]
    shortcuts = [x for x in convolutions if x.kernel_size == (1, 1)]
    assert [(x.input.shape[-1], x.strides[0]) for x in shortcuts] == [(4, 1), (8, 1), (16, 2)]
    assert [x.output.shape[1] for x in shortcuts] == [16, 8, 4]
    for shortcut in shortcuts[:2]:
        images = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype("float32")
        skipped = shortcut.input._keras_history.operation(images)
        np.testing.assert_array_equal(numpy(skipped), images[:, ::2, ::2])


@pytest.mark.usefixtures("no_draws")
def test_images_of_any_size():
    encoder = resnet(10, stem="cifar", width=8)
    for size in (16, 21):
        images = keras.KerasTensor((2, size, size, 3))
        assert encoder.compute_output_spec(images).shape == (2, 64)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="written in PyTorch")
@pytest.mark.parametrize(("depth", "stem"), [(18, "imagenet"), (18, "cifar"), (50, "imagenet")])
def test_the_output_is_that_of_the_network_as_written_in_pytorch(depth, stem):
    encoder = resnet(depth, (33, 33, 3), stem)
    rng = np.random.default_rng(0)
    for w in encoder.weights:  # of batch normalization too, none at its neutral start
        w.assign(rng.uniform(0.5, 1.5, w.shape) if len(w.shape) == 1 else w)
    images = rng.standard_normal((2, 33, 33, 3)).astype("float32")
    expected = in_pytorch(encoder, images, depth, stem)
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(numpy(encoder(images)), expected, rtol=1e-4, atol=atol)


def in_pytorch(encoder, images, depth, stem):
    """The forward pass in PyTorch's own operations, with weights taken in the order of layers."""
    import torch
    from torch.nn import functional

    def created(layer):
        number = layer.name.rpartition("_")[2]
        return int(number) if number.isdigit() else -1

    kinds = {}
    for layer in sorted(encoder.layers, key=created):
        kinds.setdefault(type(layer).__name__, []).append([w.value for w in layer.weights])

    def convolved(x, convolution, normalization, stride, padding):
        (kernel,), (gamma, beta, mean, variance) = convolution, normalization
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=padding)
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-5)

    layers = iter(zip(kinds["Conv2D"], kinds["BatchNormalization"], strict=True))
    with torch.no_grad():
        x = torch.tensor(images).permute(0, 3, 1, 2)
        x = x.to(kinds["Conv2D"][0][0].device)
        stride, padding = (2, 3) if stem == "imagenet" else (1, 1)
        x = convolved(x, *next(layers), stride, padding).relu()
        if stem == "imagenet":
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage, count in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                y = x
                if depth == 18:
                    y = convolved(y, *next(layers), stride, 1).relu()
                    y = convolved(y, *next(layers), 1, 1)
                else:
                    y = convolved(y, *next(layers), 1, 0).relu()
                    y = convolved(y, *next(layers), stride, 1).relu()
                    y = convolved(y, *next(layers), 1, 0)
                if x.shape != y.shape:
                    x = convolved(x, *next(layers), stride, 0)
                x = (x + y).relu()
    return x.mean((2, 3)).cpu().numpy()


@pytest.mark.parametrize(("argument", "value"), [("depth", 34), ("stem", "imagenette")])
def test_unknown_ones_are_named(argument, value):
    with pytest.raises(ValueError, match=f"Received: {argument}={value!r}. Expected"):
        resnet(**{"depth": 18, argument: value})


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="slow to compile elsewhere")
def test_a_model_of_keras_applications_is_an_encoder():
    encoder = keras.applications.MobileNetV2(
        (32, 32, 3), 0.35, include_top=False, weights=None, pooling="avg"
    )
    model = InstanceDiscrimination(encoder, 12, 8, "non_parametric_softmax", seed=0)
    model.compile(optimizer="sgd")
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype("uint8")
    history = model.fit(images, np.arange(12), verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.usefixtures("no_draws")
def test_smaller_ones_have_the_same_stages():
    encoder = resnet(10, (32, 32, 3), "patch", width=8, include_preprocessing=True)
    shapes = [encoder.get_layer(f"conv{i}").output.shape[1:] for i in range(1, 6)]
    assert shapes == [(16, 16, 8), (16, 16, 8), (8, 8, 16), (4, 4, 32), (2, 2, 64)]
    assert encoder.output_shape == (None, 64)
    pixels = np.array([0, 127.5, 255], "float32").reshape(3, 1, 1, 1) * np.ones((1, 4, 4, 3))
    scaled = encoder.layers[1](pixels)
    np.testing.assert_allclose(numpy(scaled)[:, 0, 0, 0], [-1, 0, 1], atol=1e-6)
    with pytest.raises(ValueError, match=r"width=0\. Expected"):
        resnet(10, width=0)
