"""Modules of PyTorch as encoders: what they expect, how they are saved."""

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import InstanceDiscrimination
from instdisc_core.data import ImageArray
from instdisc_core.encoders import TorchPreprocessing

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3)).astype("uint8")


class Net(torch.nn.Module):
    """As torchvision's: channels first, with batch normalization."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.normalization = torch.nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.normalization(self.convolution(x))).mean((2, 3))


def model_of(**kwargs):
    keras.utils.set_random_seed(0)
    model = InstanceDiscrimination(Net(), 12, 8, "non_parametric_softmax", seed=0, **kwargs)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


def test_preprocessing_is_what_torchvision_documents():
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((IMAGES / 255 - mean) / std).transpose(0, 3, 1, 2)
    found = TorchPreprocessing()(IMAGES)
    np.testing.assert_allclose(numpy(found), expected, atol=1e-5)
    layer = TorchPreprocessing((0.5,), (0.25,))
    again = TorchPreprocessing.from_config(layer.get_config())
    assert (again.mean, again.std) == ((0.5,), (0.25,))
    assert layer.compute_output_shape((None, 9, 8, 1)) == (None, 1, 9, 8)
    for arguments in (((0.5,), (0.1, 0.1)), ((0.5,), (0.0,))):
        with pytest.raises(ValueError, match="mean="):
            TorchPreprocessing(*arguments)
    with pytest.raises(ValueError, match=r"\(batch, height, width, 3\)"):
        TorchPreprocessing()(np.zeros((2, 3, 9, 8), "float32"))


def test_a_module_trains_on_the_batches_of_a_source():
    """In training mode; it embeds in evaluation mode, where an image does not depend on others."""
    model = model_of(preprocessing="torch")
    before = model.encoder.module.convolution.weight.detach().clone()
    history = model.fit(ImageArray(IMAGES).batches(4, seed=0), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert not torch.equal(model.encoder.module.convolution.weight, before)
    assert model.encoder.module.normalization.running_mean.abs().max() > 0.01
    alone, together = (model.predict(IMAGES, size, verbose=0) for size in (1, 12))
    assert together.shape == (12, 8)
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_without_it_the_error_says_what_is_missing():
    with pytest.raises(
        ValueError, match=r"(?s)shape \(.*9, 8, 3\), on which .*preprocessing='torch'"
    ):
        model_of().fit(ImageArray(IMAGES).batches(4, seed=0), verbose=0)
    wrong = model_of(preprocessing=keras.layers.Rescaling(1 / 255))
    with pytest.raises(RuntimeError, match="channels"):
        wrong.fit(ImageArray(IMAGES).batches(4, seed=0), verbose=0)


def test_saving_says_how_to_load_and_weights_need_no_pickle(tmp_path):
    model = model_of(preprocessing="torch")
    model.fit(ImageArray(IMAGES).batches(4, seed=0), verbose=0)
    expected = model.predict(IMAGES, verbose=0)
    with pytest.warns(UserWarning, match=r"pickle.*load_model\(path, safe_mode=False\)"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras.saving.load_model(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), expected)

    model.save_weights(tmp_path / "model.weights.h5")
    again = model_of(preprocessing="torch")
    again.build((None, 9, 8, 3))
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.predict(IMAGES, verbose=0), expected)


def test_a_wrapper_that_extends_the_configuration_is_a_pickle_too(tmp_path):
    class Wrapper(keras.layers.TorchModuleWrapper):
        def get_config(self):
            return {**super().get_config(), "note": "mine"}

    encoder = Wrapper(Net(), name="mine", output_shape=(None, 8))
    model = InstanceDiscrimination(encoder, 12, 8, preprocessing="torch")
    model.build((None, 9, 8, 3))
    with pytest.warns(UserWarning, match=r"mine: a torch\.nn\.Module is saved as a pickle"):
        model.save(tmp_path / "model.keras")


def buffers(model):
    return {name: value.clone() for name, value in model.encoder.module.named_buffers()}


def test_building_a_model_moves_no_running_mean():
    model = model_of(preprocessing="torch", augmenter=keras.layers.RandomFlip(seed=0))
    model.encoder.module.normalization.running_mean += 7
    before = buffers(model)
    model.build((None, 9, 8, 3))
    for name, value in buffers(model).items():
        assert torch.equal(value, before[name]), name


def test_weights_that_are_rejected_leave_the_buffers_of_a_module(tmp_path):
    model = model_of(preprocessing="torch")
    model.fit(ImageArray(IMAGES).batches(4, seed=0), verbose=0)
    model.memory_bank.rows.assign(2 * model.memory_bank.rows)
    model.save_weights(tmp_path / "model.weights.h5")
    other = model_of(preprocessing="torch")
    other.build((None, 9, 8, 3))
    before = buffers(other)
    with pytest.raises(ValueError, match="rows of memory_bank"):
        other.load_weights(tmp_path / "model.weights.h5")
    for name, value in buffers(other).items():
        assert torch.equal(value, before[name]), name


def test_memory_that_is_exhausted_is_no_matter_of_preprocessing():
    model = model_of()

    def exhausted(*args):
        raise torch.OutOfMemoryError("out of memory")

    model.encoder.module.forward = exhausted
    with pytest.raises(torch.OutOfMemoryError):
        model(IMAGES.transpose(0, 3, 1, 2))
