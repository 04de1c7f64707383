"""Encoders of keras.applications, torchvision and timm, started from a file of weights."""

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.encoders import ApplicationPreprocessing
from instdisc_core.network_libraries import NamedModule, network_library
from instdisc_core.validation import require

# Standard deviations of ImageNet's pixels in [0, 1], as EfficientNet's files hold them.
DEVIATIONS = (0.229, 0.224, 0.225)


def pretrained_encoder(
    name: str,
    weights: str | os.PathLike | None = None,
    size: int | None = None,
    **settings: Any,
) -> keras.layers.Layer:
    """A published network as an encoder, with its own preprocessing, from a file of weights.

    It takes pixels in ``[0, 255]``, ``(batch, height, width, 3)``, and returns its pooled features
    ``(batch, features)``. Nothing is ever downloaded: the weights are in the file that you give. A
    model with this encoder is saved whole, and needs the file no more.

    Args:
        name: ``"keras:NAME"``, a network of ``keras.applications``, on any framework;
            ``"torchvision:NAME"`` or ``"timm:NAME"``, on PyTorch, with that package installed.
        weights: path of the file. For ``keras.applications`` a ``.h5`` file of the network without
            its top (the name of a published one ends in ``notop`` or ``no_top``), or what
            ``encoder.save_weights("encoder.weights.h5")`` wrote; else a state dict that
            ``torch.save`` wrote, or a ``.safetensors`` file. None is random weights.
        size: side of the images in pixels, to check that the network takes them; None checks
            nothing.
        **settings: further arguments of the network, such as ``alpha=0.35`` of MobileNetV2. They
            must be those of the file.

    Returns:
        A Keras layer; of ``keras.applications``, a functional model.

    Raises:
        ValueError: an unknown library or network, a setting that an encoder determines, no such
            file, a file that does not hold the weights of this network, or images that are too
            small for it.
        ImportError: the library is not installed.

    Source:
        The preprocessing that ``keras.applications`` states for each network, that torchvision
        documents (the mean and standard deviation of ImageNet), and that timm stores with each.
        Deviation: Keras scales the input of EfficientNetB0 to B7 with ``weights="imagenet"`` alone;
        here also with a file that holds these weights.

    Example:
    ```python
    published = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None)
    published.save_weights("mobilenet.weights.h5")
    encoder = pretrained_encoder("keras:MobileNet", "mobilenet.weights.h5", size=32, alpha=0.25)
    features = frozen(encoder).predict(images)  # unit rows, without training
    ```
    """
    library, _, network = name.partition(":")
    if library == "keras":
        encoder: keras.layers.Layer = _application(network, settings)
    else:
        encoder = NamedModule(library, network, settings)
    if weights is not None:
        load_encoder(encoder, weights, f"encoder={name!r}", settings)
    if size is not None:
        require_image_size(encoder, size, f"encoder={name!r}")
    return encoder


def load_encoder(
    encoder: keras.layers.Layer,
    weights: str | os.PathLike,
    what: str = "this encoder",
    settings: Any = None,
) -> None:
    """Load a file of weights into an encoder.

    Args:
        encoder: any Keras model, or what ``pretrained_encoder`` returns.
        weights: path of the file.
        what: the encoder, for messages.
        settings: the arguments that it was built with, for messages.

    Raises:
        ValueError: there is no such file, or it does not hold the weights of this encoder.

    Example:
    ```python
    encoder.build((None, 32, 32, 3))
    encoder.save_weights("encoder.weights.h5")
    load_encoder(encoder, "encoder.weights.h5")
    ```
    """
    require(
        Path(weights).is_file(),
        f"weights={os.fspath(weights)!r}, which is no file",
        "the path of a file of weights",
        "Nothing is downloaded: fetch the file yourself, or set weights=None for random weights.",
    )
    before = encoder.get_weights()
    try:
        if isinstance(encoder, NamedModule):
            network_library(encoder.library).load(encoder.module, weights)
        else:
            encoder.load_weights(str(weights))
            _scale_as_published(encoder)
    except Exception as error:  # HDF5, ZIP, PyTorch and Keras each have their own
        encoder.set_weights(before)
        further = f" with {dict(settings)}" if settings else ""
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"Received: weights={os.fspath(weights)!r}, which do not fit {what}{further}: "
            f"{reason}. Expected the weights of that network. Name the network, and the settings, "
            "that the file was written for; of keras.applications take the file without the top, "
            "whose name ends in notop or no_top."
        ) from error


def require_image_size(encoder: keras.layers.Layer, size: int, what: str = "this encoder") -> None:
    """Raise unless an encoder takes images of this side.

    Raises:
        ValueError: it does not.

    Example: ``require_image_size(resnet(10, stem="patch", width=4), 32)``
    """
    try:
        if isinstance(encoder, NamedModule):
            encoder(np.zeros((1, size, size, 3), "uint8"), training=False)
        else:
            images = keras.KerasTensor((None, size, size, 3))
            encoder.compute_output_spec(images, training=False)
    except Exception as error:  # each network has its own
        raise ValueError(
            f"Received: images of {size} x {size} pixels, which {what} does not take: "
            f"{' '.join(str(error).split())[:300]}. Expected images of its size. Read them with "
            "another size=, and set the recipe's image_size and crop_size to it."
        ) from error


def preprocessing_of(network: str) -> str:
    """The module of ``keras.applications`` that states how to preprocess images for a network.

    Raises:
        ValueError: there is no such network.

    Example:
    ```python
    from instdisc_core.pretrained import preprocessing_of

    assert preprocessing_of("MobileNetV2") == "mobilenet_v2"
    ```
    """
    require(
        network[:1].isupper() and hasattr(keras.applications, network),
        f"encoder='keras:{network}'",
        "a network of keras.applications, such as 'keras:MobileNetV2'",
    )
    modules = vars(keras.applications).items()
    known = {name: module for name, module in modules if hasattr(module, "preprocess_input")}
    owners = [name for name, module in known.items() if hasattr(module, network)]
    if not owners:  # mobilenet_v3 does not hold its networks
        owners = [name for name in known if network.lower().startswith(name.replace("_", ""))]
    return max(owners, key=len)


def _application(network: str, settings: dict[str, Any]) -> keras.Model:
    """A network of ``keras.applications`` with random weights, after its preprocessing."""
    images = keras.Input((None, None, 3))
    pixels = ApplicationPreprocessing(preprocessing_of(network))(images)
    fixed = {"include_top": False, "weights": None, "pooling": "avg", "input_tensor": pixels}
    own = [name for name in settings if name in fixed]
    require(
        not own,
        f"{', '.join(f'{name}={settings[name]!r}' for name in own)} of encoder='keras:{network}'",
        "other settings: an encoder has no top, and averages its features",
    )
    built = getattr(keras.applications, network)(**settings, **fixed)
    return keras.Model(images, built.output, name=built.name)


def _scale_as_published(encoder: keras.layers.Layer) -> None:
    """Divide the input of EfficientNet by the standard deviation, where its file holds that.

    Its files have the standard deviation as variance, and Keras builds a layer that divides by the
    root again with ``weights="imagenet"`` alone.
    """
    for layer in getattr(encoder, "layers", []):
        if isinstance(layer, keras.layers.Normalization) and hasattr(layer, "adapt_variance"):
            variance = ops.convert_to_numpy(layer.adapt_variance).ravel()
            if variance.shape == (3,) and np.allclose(variance, DEVIATIONS, atol=1e-4):
                layer.adapt_variance.assign(ops.square(layer.adapt_variance))
                layer.finalize_state()
