"""Networks of torchvision and timm as encoders, and their files of weights."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOOGLE = {"inception_v3": ("AuxLogits",), "googlenet": ("aux1", "aux2")}  # and more classifiers
# What torchvision sets for these with published weights; without, they say how they draw weights.
AS_PUBLISHED = {"transform_input": True, "aux_logits": False, "init_weights": True}


class Network(NamedTuple):
    """A network without its classifier.

    Attributes:
        module: from normalized images ``(batch, 3, height, width)`` to ``(batch, features)``. Its
            ``removed`` has the names of the layers that it had as a classifier.
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
        """The network of this name with random weights, without its classifiers."""
        from torchvision.models import get_model

        further = GOOGLE.get(name.lower().removeprefix("quantized_"), ())
        fixed = AS_PUBLISHED if further else {}
        module: Any = get_model(name, weights=None, **fixed, **settings)
        network = without_classifier(module, *IMAGENET)
        module.removed += further
        return network

    def load(self, module: Any, path: str | os.PathLike) -> None:
        """Load a state dict; the part of it that the removed layers had is left out.

        Raises:
            ValueError: names that the module lacks, or that the file lacks.
            RuntimeError: tensors of another shape.
        """
        state = {
            name: tensor
            for name, tensor in state_dict(path).items()
            if not any(name.startswith(f"{owner}.") for owner in module.removed)
        }
        missing, unexpected = module.load_state_dict(state, strict=False)
        if missing or unexpected:
            raise ValueError(f"it lacks {_some(missing)}, and has {_some(unexpected)} too many")

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        """Draw weights by this seed; PyTorch's generator is then what it was before."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield


class Timm(Torchvision):
    """The networks of timm."""

    def build(self, name: str, **settings: Any) -> Network:
        """The network of this name with random weights, without its classifier."""
        from timm import create_model

        module = create_model(name, pretrained=False, **{**settings, "num_classes": 0})
        published = module.pretrained_cfg
        removed = published.get("classifier") or ()
        names = (removed,) if isinstance(removed, str) else tuple(removed)
        parts = dict(module.named_modules())
        owners = (n.rpartition(".")[0] for n in names)  # LeViT has an identity for all of it
        identities = (n for n in owners if isinstance(parts.get(n), torch.nn.Identity))
        module.removed = (*names, *identities)
        features = getattr(module, "head_hidden_size", module.num_features)
        return Network(module, features, published["mean"], published["std"])


def without_classifier(module: Any, mean: Any, std: Any) -> Network:
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
    module.removed = (name,)
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
