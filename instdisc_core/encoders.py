"""Residual networks for ImageNet and CIFAR, and the images that published networks expect."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
from keras import layers, ops

from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_choice, require_count

Depth = Literal[10, 18, 50]
Stem = Literal["imagenet", "cifar", "patch"]
Shape = tuple[int | None, ...]

# Blocks in each of the four stages, and whether a block is a bottleneck.
BLOCKS: dict[Depth, tuple[tuple[int, ...], bool]] = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    50: ((3, 4, 6, 3), True),
}
# PyTorch and TensorFlow compute with oneDNN on CPUs. With fewer channels it writes outside its
# memory in the gradient of a 1 x 1 convolution with strides: uxlfoundation/oneDNN, issue 6035.
NARROW = 16
STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")


def resnet18(
    input_shape: Shape = (None, None, 3), stem: Stem = "imagenet", **kwargs: Any
) -> keras.Model:
    """ResNet-18, from images to 512 pooled features.

    See ``resnet``.

    Example: ``encoder = resnet18((32, 32, 3), stem="cifar")``
    """
    return resnet(18, input_shape, stem, **kwargs)


def resnet50(
    input_shape: Shape = (None, None, 3), stem: Stem = "imagenet", **kwargs: Any
) -> keras.Model:
    """ResNet-50, from images to 2048 pooled features.

    See ``resnet``.

    Example: ``encoder = resnet50((224, 224, 3))``
    """
    return resnet(50, input_shape, stem, **kwargs)


def resnet(
    depth: Depth,
    input_shape: Shape = (None, None, 3),
    stem: Stem = "imagenet",
    width: int = 64,
    include_preprocessing: bool = False,
    name: str | None = None,
) -> keras.Model:
    """A residual network without its classifier.

    The layers ``conv1`` to ``conv5`` are the outputs of its stages, as in
    ``keras.Model(encoder.input, encoder.get_layer("conv3").output)``.

    Args:
        depth: 10 or 18, of pairs of 3x3 convolutions, or 50, of bottlenecks, which stride in their
            3x3 convolution.
        input_shape: ``(height, width, channels)``; None where it may vary.
        stem: ``"imagenet"``, a 7x7 convolution of stride 2 and a 3x3 maximum of stride 2;
            ``"cifar"``, one 3x3 convolution, for images of about 32 pixels; or ``"patch"``, a 2x2
            convolution of stride 2, for such images on a CPU.
        width: channels of the stem and of the first stage; each further stage doubles them.
        include_preprocessing: begin with a layer that scales pixels from ``[0, 255]`` to
            ``[-1, 1]``.
        name: of the model.

    Returns:
        A ``keras.Model`` from ``(batch, height, width, channels)`` to ``(batch, features)``: with
        ``width=64``, 512 features at depths 10 and 18 and 2048 at depth 50.

    Raises:
        ValueError: an unknown depth or stem, or a width below 1.

    Source:
        He et al., CVPR 2016, table 1; the stem for CIFAR is that of Wu et al.'s code. Bottlenecks
        stride as torchvision's "v1.5" do. Deviation: depth 10 and the patch stem are in neither.

    Example: ``encoder = resnet(10, (32, 32, 3), stem="patch", width=16)``
    """
    require_choice("depth", depth, sorted(BLOCKS))
    require_choice("stem", stem, get_args(Stem))
    require_count("width", width)
    blocks, bottleneck = BLOCKS[depth]
    images = x = keras.Input(input_shape)
    if include_preprocessing:
        x = layers.Rescaling(1 / 127.5, -1)(x)
    if stem == "imagenet":
        x = _normalized(x, width, 7, strides=2)
        x = layers.ReLU(name="conv1")(x)
        x = layers.ZeroPadding2D(1)(x)  # after a ReLU zeros do not change a maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    else:
        size, strides = (3, 1) if stem == "cifar" else (2, 2)
        x = layers.ReLU(name="conv1")(_normalized(x, width, size, strides))
    for i, (stage, count) in enumerate(zip(STAGES[1:], blocks, strict=True)):
        for block in range(count):
            strides = 2 if block == 0 and stage != "conv2" else 1
            last = stage if block == count - 1 else None
            x = _block(x, width * 2**i, strides, bottleneck, last)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name=name or f"resnet{depth}")


def _block(x: Tensor, filters: int, strides: int, bottleneck: bool, name: str | None) -> Tensor:
    """``relu(x + f(x))``, with ``x`` projected where its shape changes."""
    if bottleneck:
        y = layers.ReLU()(_normalized(x, filters, 1))
        y = layers.ReLU()(_normalized(y, filters, 3, strides))
        y = _normalized(y, 4 * filters, 1)
    else:
        y = layers.ReLU()(_normalized(x, filters, 3, strides))
        y = _normalized(y, filters, 3)
    if strides > 1 or x.shape[-1] != y.shape[-1]:
        x = _normalized(x, y.shape[-1], 1, strides)
    return layers.ReLU(name=name)(layers.Add()([x, y]))


def _normalized(x: Tensor, filters: int, size: int, strides: int = 1) -> Tensor:
    """A convolution without bias and batch normalization.

    The padding is equal on both sides, as in the paper's network. Keras's "same" pads one side more
    where the convolution strides.
    """
    if size > 2 and strides > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    if size == 1 and strides > 1 and x.shape[-1] < NARROW:
        x, strides = layers.MaxPooling2D(1, strides)(x), 1  # the same pixels
    x = layers.Conv2D(
        filters,
        size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


@keras.saving.register_keras_serializable(package="instdisc_core")
class TorchPreprocessing(keras.layers.Layer):
    """Converts Keras's images to the images that networks of torchvision and timm expect.

    ``(batch, height, width, channels)`` in ``[0, 255]`` becomes ``(batch, channels, height,
    width)``, ``(pixel / 255 - mean) / std``, float32.

    Args:
        mean, std: of each channel, for pixels in ``[0, 1]``; the defaults are ImageNet's.

    Raises:
        ValueError: mean and std of different length, or a std that is not greater than 0.

    Source:
        The preprocessing that torchvision documents for its pretrained weights.

    Example: ``channels_first = TorchPreprocessing()(images)``
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        require(
            len(mean) == len(std) and all(s > 0 for s in std),
            f"mean={mean!r} and std={std!r}",
            "one of each per channel, every std greater than 0",
        )
        super().__init__(**{"dtype": "float32", **kwargs})
        self.mean, self.std = tuple(mean), tuple(std)

    def call(self, images: Tensor) -> Tensor:
        """Normalized images ``(batch, channels, height, width)``."""
        require(
            len(images.shape) == 4 and images.shape[-1] == len(self.mean),
            f"images of shape {tuple(images.shape)}",
            f"(batch, height, width, {len(self.mean)})",
        )
        mean, std = ops.array(self.mean, "float32"), ops.array(self.std, "float32")
        normalized = (ops.cast(images, "float32") / 255 - mean) / std
        return ops.transpose(normalized, (0, 3, 1, 2))

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """The channels become the second axis."""
        return (images_shape[0], images_shape[3], *images_shape[1:3])

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="instdisc_core")
class ApplicationPreprocessing(keras.layers.Layer):
    """The preprocessing that ``keras.applications`` states for a network.

    Args:
        application: the name of its module, such as ``"mobilenet_v2"``.

    Example: ``normalized = ApplicationPreprocessing("mobilenet_v2")(images)  # in [-1, 1]``
    """

    def __init__(self, application: str, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.application = application

    def call(self, images: Tensor) -> Tensor:
        """Preprocessed images, float32, of the shape of ``images``."""
        module = getattr(keras.applications, self.application)
        pixels = 1.0 * ops.cast(images, "float32")  # a copy: Keras writes into its argument
        return module.preprocess_input(pixels, data_format="channels_last")

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "application": self.application}
