"""Networks of torchvision and timm as encoders, and their files of weights."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: from normalized images ``(batch, 3, height, width)`` to ``(batch, features)``.
        features: width of its output.
        mean, std: of each channel, for pixels in ``[0, 1]``.
    """

    module: torch.nn.Module
    features: int
    mean: Sequence[float]
    std: Sequence[float]


class Torchvision:
    """The networks of ``torchvision.models``."""

    def build(self, name: str, **settings: Any) -> Network:
        """The network of this name with random weights, without its classifier."""
        from torchvision.models import get_model

        return without_classifier(get_model(name, weights=None, **settings), *IMAGENET)

    def load(self, module: torch.nn.Module, path: str | os.PathLike) -> None:
        """Load a state dict; the classifier's part of it is left out.

        Raises:
            ValueError: names that the module lacks, or that the file lacks.
            RuntimeError: tensors of another shape.
        """
        removed = [n for n, child in module.named_modules() if isinstance(child, torch.nn.Identity)]
        state = {
            name: tensor
            for name, tensor in state_dict(path).items()
            if not any(name.startswith(f"{owner}.") for owner in removed)
        }
        missing, unexpected = module.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise ValueError(f"it lacks {_some(missing)}, and has {_some(unexpected)} too many")


class Timm(Torchvision):
    """The networks of timm."""

    def build(self, name: str, **settings: Any) -> Network:
        """The network of this name with random weights, without its classifier."""
        from timm import create_model

        module = create_model(name, pretrained=False, **settings)
        return without_classifier(
            module, module.pretrained_cfg["mean"], module.pretrained_cfg["std"]
        )


def without_classifier(module: torch.nn.Module, mean: Any, std: Any) -> Network:
    """The network with the identity in place of its last linear layer.

    Raises:
        ValueError: it has no linear layer.
    """
    linear = [(n, c) for n, c in module.named_modules() if isinstance(c, torch.nn.Linear)]
    if not linear:
        raise ValueError(
            f"Received: {type(module).__name__}, which has no linear layer. Expected a network "
            "that ends in one, its classifier."
        )
    name, classifier = linear[-1]
    module.set_submodule(name, torch.nn.Identity())
    return Network(module, classifier.in_features, mean, std)


def state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights by name; no pickled code runs."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state.get("model", state))


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" or "nothing"


TORCHVISION, TIMM = Torchvision(), Timm()
