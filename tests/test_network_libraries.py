"""Networks of torchvision and timm by name; here with modules of their interface."""

import sys
import types
import warnings

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import recipes
from instdisc_core.data import ImageArray
from instdisc_core.evaluation.judging import with_random_weights
from instdisc_core.frozen_encoder import frozen
from instdisc_core.pretrained import pretrained_encoder

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 9, 9, 3)).astype("uint8")
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
HALF = np.full(3, 0.5), np.full(3, 0.5)


class Net(torch.nn.Module):
    """As a network of torchvision: channels first, batch normalization, a classifier ``fc``."""

    def __init__(self, width=6, num_classes=10):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 3)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.num_features = width
        self.fc = torch.nn.Linear(width, num_classes) if num_classes else torch.nn.Identity()

    def forward(self, x):
        return self.fc(torch.relu(self.bn1(self.conv1(x))).mean((2, 3)))


class Inception(Net):
    """As ``inception_v3``: a second classifier for training, and another normalization."""

    def __init__(self, transform_input=False, aux_logits=True, init_weights=None):
        super().__init__()
        self.transform_input = transform_input
        self.AuxLogits = torch.nn.Linear(6, 10) if aux_logits else None
        if init_weights is None:
            warnings.warn("the initialization will change", FutureWarning, stacklevel=2)

    def forward(self, x):
        if self.transform_input:
            mean, std = (torch.tensor(v, dtype=x.dtype)[:, None, None] for v in IMAGENET)
            x = (x * std + mean - 0.5) / 0.5
        y = super().forward(x)
        return (y, self.AuxLogits(y)) if self.training and self.AuxLogits else y


class Distilled(Net):
    """As the distilled DeiT of timm: two classifiers."""

    def __init__(self, num_classes=10):
        super().__init__(num_classes=num_classes)
        self.fc_dist = torch.nn.Linear(6, num_classes) if num_classes else torch.nn.Identity()

    def forward(self, x):
        features = torch.relu(self.bn1(self.conv1(x))).mean((2, 3))
        return (self.fc(features) + self.fc_dist(features)) / 2


class Headed(Net):
    """As LeViT of timm: all of its ``head`` is left out without classes."""

    def __init__(self, num_classes=10):
        super().__init__(num_classes=0)
        head = torch.nn.Sequential()
        head.add_module("bn", torch.nn.BatchNorm1d(6))
        head.add_module("linear", torch.nn.Linear(6, num_classes or 1))
        self.head = head if num_classes else torch.nn.Identity()

    def forward(self, x):
        return self.head(super().forward(x))


NETWORKS = {"net": Net, "inception_v3": Inception, "distilled": Distilled, "headed": Headed}
CLASSIFIERS = {"distilled": ("fc", "fc_dist"), "headed": "head.linear"}


def get_model(name, weights=None, **settings):
    if name not in NETWORKS:
        raise ValueError(f"Unknown model {name}")
    assert weights is None, "else it downloads"
    return NETWORKS[name](**settings)


def create_model(name, pretrained=False, **settings):
    module = get_model(name, "its own" if pretrained else None, **settings)
    classifier = CLASSIFIERS.get(name, "fc")
    module.pretrained_cfg = {"mean": HALF[0], "std": HALF[1], "classifier": classifier}
    return module


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Modules with the functions of torchvision and timm that are used."""
    models = types.ModuleType("torchvision.models")
    models.get_model = get_model
    torchvision, timm = types.ModuleType("torchvision"), types.ModuleType("timm")
    torchvision.models, timm.create_model = models, create_model
    for module in (torchvision, models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def published(kind=Net, **settings):
    """The network with weights and running means of its own."""
    torch.manual_seed(5)
    net = kind(**settings)
    net.bn1.running_mean += 0.3
    net.bn1.weight.data *= 2
    return net.eval()


def features_of(net, mean, std):
    """Pooled features of a network without its classifier."""
    pixels = torch.tensor(((IMAGES / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)
    with torch.no_grad():
        return torch.relu(net.bn1(net.conv1(pixels))).mean((2, 3)).cpu().numpy()


@pytest.mark.parametrize(("library", "normal"), [("torchvision", IMAGENET), ("timm", HALF)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_features_are_those_of_the_published_network(tmp_path, library, normal, wrapped):
    """Normalized as the library says, whatever classifier the file has."""
    net = published(num_classes=7)
    state = net.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    encoder = pretrained_encoder(f"{library}:net", tmp_path / "net.pth", size=9)
    found = frozen(encoder).predict(IMAGES, verbose=0)
    expected = features_of(net, *normal)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("torchvision:inception_v3", {"init_weights": True}),
        ("timm:distilled", {}),
        ("timm:headed", {}),
    ],
)
def test_networks_with_several_classifiers_lose_all_of_them(tmp_path, name, settings):
    """They return features in training too, and inputs are transformed as with published files."""
    net = published(NETWORKS[name.partition(":")[2]], **settings)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    encoder = pretrained_encoder(name, tmp_path / "net.pth")
    found = numpy(encoder(IMAGES, training=False))
    np.testing.assert_allclose(found, features_of(net, *HALF), atol=1e-5)
    assert encoder.output_shape == (None, 6) == (None, *encoder(IMAGES, training=True).shape[1:])


def test_what_would_undo_the_published_preprocessing_is_rejected():
    with pytest.raises(TypeError, match="multiple values for keyword argument 'transform_input'"):
        pretrained_encoder("torchvision:inception_v3", transform_input=False)


def test_entries_for_another_identity_are_rejected(tmp_path, monkeypatch):
    state = {**published().state_dict(), "skip.weight": torch.ones(1)}
    torch.save(state, tmp_path / "net.pth")

    class Skipping(Net):
        def __init__(self, **settings):
            super().__init__(**settings)
            self.skip = torch.nn.Identity()

    monkeypatch.setitem(NETWORKS, "net", Skipping)
    with pytest.raises(ValueError, match=r"has skip\.weight too many"):
        pretrained_encoder("torchvision:net", tmp_path / "net.pth")


@pytest.mark.parametrize("nested", [False, True])
def test_random_weights_follow_the_seed_and_nothing_else_is_drawn(nested):
    encoder = pretrained_encoder("timm:net")
    model = frozen(keras.Sequential([keras.Input((9, 9, 3)), encoder]) if nested else encoder)
    before = torch.get_rng_state()
    copies = [with_random_weights(model, (9, 9), seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    first, equal, other = (copy.predict(IMAGES, verbose=0) for copy in copies)
    np.testing.assert_array_equal(first, equal)
    assert not np.allclose(first, other)


def test_files_that_do_not_fit_are_named(tmp_path):
    torch.save(published(width=5).state_dict(), tmp_path / "narrow.pth")
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "other.pth")
    torch.save(published(), tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("<html>404</html>")
    for name, reason in (
        ("narrow.pth", "size mismatch"),
        ("other.pth", "it lacks conv1.weight.*and has a.weight too many"),
        ("pickle.pth", "Weights only load failed"),
        ("text.pth", ""),
    ):
        with pytest.raises(
            ValueError, match=rf"{name}', which do not fit encoder='timm:net'.*{reason}"
        ):
            pretrained_encoder("timm:net", tmp_path / name)
    with pytest.raises(ValueError, match="Unknown model nets"):
        pretrained_encoder("timm:nets")
    with pytest.raises(ValueError, match="images of 2 x 2 pixels, which encoder='torchvision:net'"):
        pretrained_encoder("torchvision:net", size=2)


def test_a_network_without_a_classifier_is_named(monkeypatch):
    monkeypatch.setattr(
        sys.modules["torchvision.models"], "get_model", lambda *args, **kwargs: torch.nn.ReLU()
    )
    with pytest.raises(ValueError, match="ReLU, which has no linear layer"):
        pretrained_encoder("torchvision:relu")


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="timm"):
        pretrained_encoder("timm:net")


def test_a_run_starts_from_the_file_and_is_loaded_without_it_or_a_pickle(tmp_path, recwarn):
    torch.save(published().state_dict(), tmp_path / "net.pth")
    recipe = recipes.get(
        "small-cifar10",
        image_size=9,
        crop_size=8,
        batch_size=6,
        epochs=2,
        embedding_dim=4,
        encoder="torchvision:net",
        encoder_settings=(("width", 6),),
        weights=str(tmp_path / "net.pth"),
        encoder_rate=0.1,
        dtype_policy="float32",
    )
    model = recipe.train(ImageArray(IMAGES), tmp_path / "run", verbose=0)
    (tmp_path / "net.pth").unlink()
    again = keras.saving.load_model(tmp_path / "run" / "model.keras")
    np.testing.assert_array_equal(again.predict(IMAGES), model.predict(IMAGES))
    assert numpy(again.encoder.module.bn1.running_mean).max() > 0
    assert not [w for w in recwarn if "pickle" in str(w.message)]
    found = (tmp_path / "run" / "verdict.txt").read_text()
    assert "pretrained encoder" in found
