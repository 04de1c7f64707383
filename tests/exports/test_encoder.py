"""Encoders as programs: what the tools that they are for compute."""

import sys

import keras
import numpy as np
import pytest

from instdisc_core.exports import encoder, export, export_encoder
from instdisc_core.frozen_encoder import frozen
from instdisc_core.index import ImageIndex

OF = {"torch": ("encoder.pt2", "encoder.onnx"), "tensorflow": ("folder", "encoder.tflite")}
BACKEND = keras.backend.backend()
OTHER = {"torch": "tensorflow"}.get(BACKEND, "torch")

needs_exports = pytest.mark.skipif(BACKEND not in OF, reason="no format is this framework's")
# Of the tools, not of this project.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


def format_of(path):
    """The format of one of these paths."""
    return "saved-model" if path == "folder" else None


def needs(path):
    """Skip where the tool for a file is not installed."""
    for module in {"encoder.onnx": ("onnxscript", "onnxruntime")}.get(path, ()):
        pytest.importorskip(module, reason="an extra")
    if path.endswith(".tflite"):
        pytest.importorskip("ai_edge_litert", reason="an extra")


def loaded(path):
    """What the tool computes."""
    chosen = encoder.format_of(path, format_of(path.name), encoder.ENCODER_FORMATS)
    return encoder.encoder_exporter(chosen).load(str(path))


@needs_exports
@pytest.mark.parametrize("path", OF.get(BACKEND, ()))
def test_the_program_computes_the_rows_of_the_index(index, photos, tmp_path, path):
    needs(path)
    export(index, tmp_path / path, format_of(path))
    run = loaded(tmp_path / path)
    pixels = photos.images()
    np.testing.assert_allclose(run(pixels), index.rows, atol=1e-5)
    np.testing.assert_allclose(run(pixels[4:5]), index.rows[4:5], atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [path], "nothing else is left"


@needs_exports
def test_mixed_precision_becomes_float32(photos, tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(6, dtype="mixed_bfloat16")]
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), *layers])
    model = frozen(network)
    path = OF[BACKEND][0]
    export_encoder(model, tmp_path / path, (8, 8), format_of(path))
    assert layers[1].compute_dtype == "bfloat16", "the model is as it was"
    weights, pixels = network.get_weights()[0].astype("float64"), photos.images()
    wanted = pixels.reshape(len(pixels), -1) / 255 @ weights
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded(tmp_path / path)(pixels), wanted, atol=1e-5)


@needs_exports
def test_a_folder_that_holds_something_else_is_never_replaced(index, tmp_path):
    place = tmp_path / OF[BACKEND][0]
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="a folder that holds something else"):
        export(index, place, format_of(place.name))
    assert [p.name for p in place.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="its format is a folder")
def test_an_earlier_export_is_replaced_unless_it_holds_more(index, tmp_path):
    for _ in range(2):
        export(index, tmp_path / "folder", "saved-model")
    (tmp_path / "folder" / "labels.txt").write_text("mine")
    with pytest.raises(ValueError, match="a folder that holds something else"):
        export(index, tmp_path / "folder", "saved-model")
    assert (tmp_path / "folder" / "labels.txt").read_text() == "mine"


@needs_exports
def test_an_encoder_that_was_trained_further_is_not_exported(photos, tmp_path):
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    network.add(keras.layers.Dense(6))
    index = ImageIndex.from_model(frozen(network), photos)
    network.set_weights([2 * weight + 1 for weight in network.get_weights()])
    with pytest.raises(ValueError, match="weights have changed since the index was built"):
        export(index, tmp_path / OF[BACKEND][0], format_of(OF[BACKEND][0]))


@needs_exports
def test_what_a_tool_cannot_write_is_one_sentence(index, tmp_path, monkeypatch):
    path = OF[BACKEND][0]
    exporter = encoder.encoder_exporter(encoder.format_of(path, format_of(path)))

    def fail(*_):
        raise TypeError("no such\n  operator")

    monkeypatch.setattr(type(exporter), "write", fail)
    with pytest.raises(RuntimeError, match=r"cannot be written as .*: no such operator"):
        export(index, tmp_path / path, format_of(path))
    assert not list(tmp_path.iterdir())


@needs_exports
def test_a_program_that_computes_other_rows_is_not_kept(index, tmp_path, monkeypatch):
    path = OF[BACKEND][0]
    exporter = encoder.encoder_exporter(encoder.format_of(path, format_of(path)))
    (tmp_path / path).mkdir() if path == "folder" else (tmp_path / path).write_text("old")
    monkeypatch.setattr(type(exporter), "write", lambda self, model, images, path: None)
    wrong = np.roll(index.rows, 1, axis=0)
    monkeypatch.setattr(type(exporter), "load", lambda self, path: lambda x: wrong[: len(x)])
    with pytest.raises(RuntimeError, match="returns other embeddings than the model"):
        export(index, tmp_path / path, format_of(path))
    assert [p.name for p in tmp_path.iterdir()] == [path]


def test_another_framework_s_format_is_an_error(index, tmp_path):
    path = OF[OTHER][0]
    with pytest.raises(ValueError, match=f"Set KERAS_BACKEND={OTHER}"):
        export(index, tmp_path / path, format_of(path))


@needs_exports
def test_a_missing_runtime_is_named(index, tmp_path, monkeypatch):
    module, extra = {"torch": ("onnxruntime", "onnx"), "tensorflow": ("ai_edge_litert", "litert")}[
        BACKEND
    ]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{module}.*'instdisc-core\[{extra}\]'"):
        export_encoder(index.model, tmp_path / OF[BACKEND][1], (8, 8))


@needs_exports
def test_an_index_without_an_encoder_has_nothing_to_export(index, tmp_path):
    path = OF[BACKEND][0]
    with pytest.raises(ValueError, match="an index without an encoder"):
        export(ImageIndex(index.rows, index.manifest), tmp_path / path, format_of(path))
