"""Networks of other libraries, by name."""

import os
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Any, Protocol

import keras

from instdisc_core.encoders import TorchPreprocessing
from instdisc_core.types import Tensor
from instdisc_core.validation import require

GROUP = "instdisc_core.encoders"


class Network(Protocol):
    """A network without its classifier.

    Attributes:
        module: a ``torch.nn.Module`` from normalized images ``(batch, 3, height, width)`` to
            ``(batch, features)``.
        features: width of its output.
        mean, std: of each channel, for pixels in ``[0, 1]``.
    """

    module: Any
    features: int
    mean: Sequence[float]
    std: Sequence[float]


class NetworkLibrary(Protocol):
    """What an entry point in the group ``instdisc_core.encoders`` names."""

    def build(self, name: str, **settings: Any) -> Network:
        """The network of this name with random weights; nothing is downloaded."""

    def load(self, module: Any, path: str | os.PathLike) -> None:
        """Load a file of weights, without a classifier's. Raise if they do not fit."""

    def seeded(self, seed: int) -> AbstractContextManager[None]:
        """In a ``with`` block ``build`` draws weights by this seed; later draws do not change."""


def network_library(name: str) -> NetworkLibrary:
    """The library of this name, from its entry point."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    require(
        name in known,
        f"encoder={name + ':...'!r}",
        f"'keras:NAME' or one of {', '.join(f'{n}:NAME' for n in sorted(known))}",
        f"Or install a package that has an entry point in the group {GROUP!r}.",
    )
    require(
        keras.backend.backend() == "torch",
        f"encoder={name + ':...'!r} while Keras runs on {keras.backend.backend()!r}",
        "Keras on PyTorch",
        "Set KERAS_BACKEND=torch before keras is imported, or take a network of "
        "keras.applications: encoder='keras:NAME'.",
    )
    return known[name].load()


@keras.saving.register_keras_serializable(package="instdisc_core")
class NamedModule(keras.layers.TorchModuleWrapper):
    """A ``torch.nn.Module`` of a library, with its preprocessing; see ``pretrained_encoder``.

    It is rebuilt by its name, so that a saved model holds no pickle.

    Args:
        library, network: names; see ``pretrained_encoder``.
        settings: further arguments of the network.

    Attributes:
        output_shape: ``(None, features)``.
        pickles_module: False; a file of any other TorchModuleWrapper holds its module as a pickle.
    """

    pickles_module = False

    def __init__(
        self, library: str, network: str, settings: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        built = network_library(library).build(network, **(settings or {}))
        kwargs = {"dtype": "float32", "output_shape": (None, built.features), **kwargs}
        super().__init__(built.module, **kwargs)
        self.library, self.network, self.settings = library, network, dict(settings or {})
        self.preprocessing = TorchPreprocessing(built.mean, built.std)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Features ``(batch, features)`` of pixels ``(batch, height, width, 3)``."""
        trains = bool(training) and self.trainable  # else its batch normalization stays as it is
        return super().call(self.preprocessing(images), training=trains)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "NamedModule":
        """Rebuild this layer; Python's ``random`` seeds its weights, as those of Keras's layers."""
        with network_library(config["library"]).seeded(random.getrandbits(32)):
            return super().from_config(config)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {
            **keras.layers.Layer.get_config(self),
            "library": self.library,
            "network": self.network,
            "settings": dict(self.settings),
        }
