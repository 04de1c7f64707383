"""Networks whose layers run in the framework's own functions compute what Keras computes."""

import weakref

import keras
import numpy as np
import pytest
from differentiation import numpy
from keras import layers
from processors import BFLOAT16

from instdisc_core import InstanceDiscrimination, native_layers
from instdisc_core.encoders import resnet

IMAGES, ROWS = (9, 8, 4), (6,)
WITHOUT = keras.backend.backend() not in ("torch", "tensorflow")

# Each layer with the settings that its function computes, and with those it leaves to Keras.
LAYERS = {
    "activation": (IMAGES, lambda: layers.Activation("gelu")),
    "batch normalization": (IMAGES, lambda: layers.BatchNormalization(momentum=0.7, epsilon=1e-2)),
    "of rows": (ROWS, layers.BatchNormalization),
    "without scale": (IMAGES, lambda: layers.BatchNormalization(scale=False)),
    "without center": (IMAGES, lambda: layers.BatchNormalization(center=False)),
    "without both": (
        IMAGES,
        lambda: layers.BatchNormalization(scale=False, center=False, epsilon=1e-5),
    ),
    "of another axis": (IMAGES, lambda: layers.BatchNormalization(axis=1)),
    "frozen": (IMAGES, lambda: layers.BatchNormalization(trainable=False)),
    "renormalization": (IMAGES, lambda: layers.BatchNormalization(renorm=True)),
    "convolution": (IMAGES, lambda: layers.Conv2D(5, 3)),
    "same padding": (IMAGES, lambda: layers.Conv2D(5, (3, 1), padding="same", activation="relu")),
    "even and same": (IMAGES, lambda: layers.Conv2D(5, 2, padding="same")),
    "strided and same": (IMAGES, lambda: layers.Conv2D(5, 3, 2, padding="same")),
    "strided": (IMAGES, lambda: layers.Conv2D(5, 3, (2, 1), use_bias=False)),
    "dilated": (IMAGES, lambda: layers.Conv2D(5, 3, padding="same", dilation_rate=2)),
    "of float32": (IMAGES, lambda: layers.Conv2D(5, 3, dtype="float32")),
    "regularized": (IMAGES, lambda: layers.Conv2D(5, 3, kernel_regularizer="l2")),
    "its output regularized": (  # Keras fails in bfloat16 on TensorFlow
        IMAGES,
        lambda: layers.Conv2D(5, 3, dtype="float32", activity_regularizer="l2"),
    ),
    "depthwise": (
        IMAGES,
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu"),
    ),
    "dense": (ROWS, lambda: layers.Dense(3, activation="tanh")),
    "without bias": (ROWS, lambda: layers.Dense(3, use_bias=False)),
    "padding": (IMAGES, lambda: layers.ZeroPadding2D(((1, 0), (2, 3)))),
    "maximum": (IMAGES, lambda: layers.MaxPooling2D(3, 2)),
    "maximum, same": (IMAGES, lambda: layers.MaxPooling2D(3, 2, padding="same")),
    "mean": (IMAGES, layers.GlobalAveragePooling2D),
    "mean, kept": (IMAGES, lambda: layers.GlobalAveragePooling2D(keepdims=True)),
    "relu": (IMAGES, layers.ReLU),
    "relu below a maximum": (IMAGES, lambda: layers.ReLU(0.5)),
    "leaky relu": (IMAGES, lambda: layers.ReLU(negative_slope=0.1)),
    "rescaling": (IMAGES, lambda: layers.Rescaling(1 / 127.5, offset=-1)),
    "rescaling of each channel": (IMAGES, lambda: layers.Rescaling([0.5, 1, 2, 3], offset=-1)),
    "relu above a threshold": (IMAGES, lambda: layers.ReLU(threshold=0.2)),
}


class Network(keras.Model):
    """A network that runs in Keras, or natively."""

    def __init__(self, network, native):
        super().__init__()
        self.network, self.native = network, native

    def call(self, x, training=None):
        if self.native:
            return native_layers.call(self.network, x, training)
        return self.network(x, training=training)


def outcomes(build, shape, native):
    """Outputs in inference before and after a step of training, its loss, and the weights."""
    keras.utils.set_random_seed(0)
    model = Network(build(), native)
    model.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=True)
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype("float32")
    before = numpy(model(x, training=False))
    target = np.random.default_rng(1).standard_normal(before.shape).astype("float32")
    loss = model.train_on_batch(x, target)
    return before, loss, numpy(model(x, training=False)), *(numpy(w) for w in model.weights)


def assert_alike(build, shape, policy):
    """Raise unless both ways give the same outcomes."""
    global_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    tolerance = 1e-5 if policy == "float32" else 0.05
    try:
        ours, keras_s = (outcomes(build, shape, native) for native in (True, False))
    finally:
        keras.config.set_dtype_policy(global_policy)
    for one, other in zip(ours, keras_s, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
@pytest.mark.parametrize("policy", ["float32", BFLOAT16])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_and_trains_as_in_keras(name, policy):
    shape, layer = LAYERS[name]

    def build():  # the dense layer trains through it
        return keras.Sequential([keras.Input(shape), layers.Dense(shape[-1]), layer()])

    assert_alike(build, shape, policy)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_a_batch_of_one_row_moves_the_moments():
    network = keras.Sequential([keras.Input(ROWS), layers.BatchNormalization(momentum=0.5)])
    x = np.random.default_rng(0).standard_normal((1, *ROWS)).astype("float32")
    np.testing.assert_array_equal(numpy(native_layers.call(network, x, training=True)), 0)
    mean, variance = map(numpy, network.non_trainable_variables)
    np.testing.assert_allclose(mean, 0.5 * x[0], atol=1e-6)
    np.testing.assert_allclose(variance, 0.5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="its backend states this layer")
@pytest.mark.parametrize("policy", ["float32", BFLOAT16])
def test_rescaling_is_native_and_rounds_as_keras_does(policy, monkeypatch):
    layer = layers.Rescaling(1 / 127.5, offset=-1, dtype=policy)
    network = keras.Sequential([keras.Input((256,)), layer])
    x = np.arange(256, dtype="float32")[None]
    expected = numpy(keras.ops.cast(network(x), "float32"))

    def fail(self, *args, **kwargs):
        raise AssertionError("Keras computes this layer")

    monkeypatch.setattr(layers.Rescaling, "call", fail)
    found = native_layers.call(network, x, training=True)
    np.testing.assert_array_equal(numpy(keras.ops.cast(found, "float32")), expected)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
@pytest.mark.parametrize("images", [1, 3])
def test_a_call_without_state_leaves_the_moving_moments(images):
    network = keras.Sequential([keras.Input(ROWS), layers.BatchNormalization(momentum=0.5)])
    x = np.random.default_rng(0).standard_normal((images, *ROWS)).astype("float32")
    values = [keras.ops.copy(v.value) for v in network.non_trainable_variables]
    before = [numpy(v).copy() for v in values]
    pairs = list(zip(network.non_trainable_variables, values, strict=True))
    with keras.StatelessScope(pairs) as scope:
        native_layers.call(network, x, training=True)
        after = [numpy(scope.get_current_value(v)) for v, _ in pairs]
    for expected, value, variable in zip(
        before, values, network.non_trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(numpy(value), expected)
        np.testing.assert_array_equal(numpy(variable), expected)
    np.testing.assert_allclose(after[0], 0.5 * x.mean(0), atol=1e-6)
    np.testing.assert_allclose(after[1], 0.5 + 0.5 * x.var(0), atol=1e-6)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
@pytest.mark.parametrize("depth", [10, 50])
@pytest.mark.parametrize("training", [True, False])
def test_a_residual_network_computes_as_in_keras(depth, training):
    encoder = resnet(depth, (32, 32, 3), "imagenet", width=4)
    start = encoder.get_weights()
    images = np.random.default_rng(0).standard_normal((16, 32, 32, 3)).astype("float32")
    ours = numpy(native_layers.call(encoder, images, training)), *encoder.get_weights()
    encoder.set_weights(start)
    keras_s = numpy(encoder(images, training=training)), *encoder.get_weights()
    for one, other in zip(ours, keras_s, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-2 * max(1, np.abs(other).max()))


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_graphs_of_branches_nested_networks_and_layers_used_twice():
    def build():
        convolution = layers.Conv2D(4, 3, padding="same")
        inner_input = keras.Input(IMAGES)
        inner = keras.Model(inner_input, layers.BatchNormalization()(convolution(inner_input)))
        x = images = keras.Input(IMAGES)
        x = layers.Add()([inner(x), layers.ReLU()(convolution(x)), x])
        x = layers.Add()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
        return keras.Model(images, layers.Flatten()(keras.ops.tanh(x)))

    assert_alike(build, IMAGES, "float32")


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_a_model_trains_its_encoder_and_its_projector_natively(monkeypatch):
    encoder = resnet(10, (8, 8, 3), "patch", width=4)
    projector = keras.Sequential([layers.BatchNormalization(), layers.Dense(4)])
    if keras.backend.backend() == "tensorflow":  # where only that of images has a function
        projector = None
    model = InstanceDiscrimination(encoder, 8, 4, "info_nce", projector=projector, seed=0)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.build((None, 8, 8, 3))

    def fail(self, *args, **kwargs):
        raise AssertionError("Keras computes this layer")

    monkeypatch.setattr(layers.BatchNormalization, "call", fail)
    images = np.random.default_rng(0).random((8, 8, 8, 3)).astype("float32")
    assert np.isfinite(model.train_on_batch(images, np.arange(8)))


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_a_subclass_computes_what_it_says():
    class Nothing(layers.ReLU):
        def call(self, x):
            return 0 * x

    x = np.ones((2, *ROWS), "float32")
    network = keras.Sequential([keras.Input(ROWS), Nothing()])
    assert not numpy(native_layers.call(network, x, training=True)).any()

    class Twice(keras.Sequential):
        def call(self, x, training=None):
            return 2 * super().call(x)

    network = Twice([keras.Input(ROWS), layers.ReLU()])
    np.testing.assert_array_equal(numpy(native_layers.call(network, x, training=True)), 2 * x)


def test_a_network_that_is_no_graph_cannot_normalize_by_the_images_of_all_ranks():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.normalize = layers.BatchNormalization(name="normalize")

        def call(self, x, training=None):
            return self.normalize(x, training=training)

    x = np.ones((2, *ROWS), "float32")
    on_ranks = {layers.BatchNormalization: lambda layer, x, training: 0 * x}
    with pytest.raises(ValueError, match=r"\['normalize'\] in a Own on several ranks"):
        native_layers.call(Own(), x, True, on_ranks)
    native_layers.call(Own(), x, False, on_ranks)
    network = keras.Sequential([keras.Input(ROWS), layers.BatchNormalization()])
    assert not numpy(native_layers.call(network, x, True, on_ranks)).any()


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_a_layer_in_float32_keeps_its_weights_in_a_mixed_model():
    x = np.random.default_rng(0).standard_normal((4, *ROWS)).astype("float32")
    network = keras.Sequential([keras.Input(ROWS), layers.Dense(3, dtype="float32")])
    model = Network(network, native=True)
    model.dtype_policy = "mixed_bfloat16"
    weights = [numpy(w) for w in network.weights]
    x = numpy(keras.ops.cast(x, "bfloat16")).astype("float32")
    found = numpy(model(x, training=False))
    np.testing.assert_allclose(found, x @ weights[0] + weights[1], atol=1e-5)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_masks_reach_the_layers_that_use_them():
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype("float32")
    x[:, 3:] = 0
    network = keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Masking(),
            layers.Dense(3),
            layers.Activation("tanh"),
            layers.GlobalAveragePooling1D(),
        ]
    )
    expected = numpy(network(x, training=False))
    np.testing.assert_allclose(numpy(native_layers.call(network, x, False)), expected, atol=1e-6)


@pytest.mark.skipif(WITHOUT, reason="this backend states no layers")
def test_one_output_in_a_list_and_images_of_another_size():
    images = keras.Input(IMAGES)
    network = keras.Model(images, [layers.GlobalAveragePooling2D()(images)])
    assert native_layers.call(network, np.ones((2, *IMAGES), "float32"), True).shape == (2, 4)
    with pytest.raises(ValueError, match="shape"):
        native_layers.call(network, np.ones((2, 4, 4, 4), "float32"), True)


def test_a_tensor_is_let_go_after_the_last_layer_that_reads_it():
    made, alive = [], []

    def double(layer, x, training):
        alive.append(sum(reference() is not None for reference in made))
        y = 2 * x
        made.append(weakref.ref(y))
        return y

    tensors = [keras.Input(ROWS)]
    for _ in range(6):
        tensors.append(layers.Activation("linear")(tensors[-1]))
    network = keras.Model(tensors[0], layers.Add()([tensors[2], tensors[6]]))
    x = np.ones((2, *ROWS), "float32")
    y = native_layers.call(network, x, False, {layers.Activation: double})
    np.testing.assert_array_equal(numpy(y), 4 + 64 * x)
    assert alive == [0, 1, 1, 2, 2, 2]  # the input; from the fourth layer on also the branch


def test_without_a_word_on_training_or_functions_keras_runs(monkeypatch):
    x = np.ones((4, *ROWS), "float32")
    network = keras.Sequential([keras.Input(ROWS), layers.Dropout(0.5, seed=0)])
    np.testing.assert_array_equal(numpy(native_layers.call(network, x)), x)
    monkeypatch.setattr(native_layers, "native_layers", lambda backend: {})
    assert (numpy(native_layers.call(network, x, training=True)) == 0).any()
    monkeypatch.undo()
    assert (numpy(native_layers.call(network, x, training=True)) == 0).any()
    np.testing.assert_array_equal(numpy(native_layers.call(network, x, training=False)), x)
