"""An encoder as a program of its own: from pixels to the unit rows of an index, without Keras."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from instdisc_core.data.names import printable
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.exports.formats import ENCODER_FORMATS, EncoderFormat, format_of
from instdisc_core.exports.packages import require_packages
from instdisc_core.files import PART
from instdisc_core.index.embedder import embedder_of
from instdisc_core.normalization import unit
from instdisc_core.types import Tensor
from instdisc_core.validation import require

GROUP = "instdisc_core.exports"
HALF = ("bfloat16", "float16")
SAVED_MODEL = "saved_model.pb"
OF_SAVED_MODEL = {SAVED_MODEL, "assets", "fingerprint.pb", "variables", ".DS_Store"}
TOLERANCE = 1e-4  # of a component of a unit row; frameworks differ in the order of their sums

FRAMEWORKS: dict[EncoderFormat, str] = {
    "onnx": "torch",
    "torch-export": "torch",
    "saved-model": "tensorflow",
    "litert": "tensorflow",
}


class EncoderExporter(Protocol):
    """How a framework writes a format: what an entry point in ``instdisc_core.exports`` lists.

    Attributes:
        packages: the modules that it needs next to its framework.
        extra: of this project, which installs them.
    """

    packages: tuple[str, ...]
    extra: str

    def write(self, model: keras.Model, images: keras.InputSpec, path: str) -> None:
        """Write a model, from images to unit rows, to a path at which there is nothing."""

    def load(self, path: str) -> Callable[[np.ndarray], np.ndarray]:
        """What the tool that the format is for computes: from uint8 images to unit rows."""


def export_encoder(
    model: EmbeddingModel,
    path: str | os.PathLike,
    size: tuple[int, int],
    format: EncoderFormat | None = None,
    mirror: bool = False,
) -> None:
    """Write a model as a program from pixels to unit embeddings, which needs no Keras.

    It contains preprocessing, encoder, projector (or whitening) and normalization, for batches of
    any size. Before ``path`` appears, the program is loaded by the runtime of its format, and its
    rows are compared with the model's: none of their numbers may differ by more than 1e-4. It
    computes in float32, also where the model computes in a half precision; that changes rows by as
    much as the half precision rounds.

    Args:
        model: an EmbeddingModel.
        path: to write to; what is there is replaced. ``.onnx``, ``.pt2`` (torch.export),
            ``.tflite`` (LiteRT), or a folder (TensorFlow's SavedModel).
        size: ``(height, width)`` of its images. They are uint8 ``(batch, height, width, 3)``, RGB.
        format: None is the one of the suffix.
        mirror: embed the mirror image too, as ``ImageIndex.from_model`` does by default.

    Raises:
        ValueError: a suffix of another format, a folder that holds something else, or Keras runs
            on a framework that does not write it: ONNX and torch.export need PyTorch and
            Keras 3.15, the others TensorFlow.
        ImportError: a package is missing; nothing has been computed then.
        RuntimeError: the tool cannot write this encoder, or the program computes other rows;
            ``path`` is as it was.

    Example:
    ```python
    from instdisc_core.exports import export_encoder

    if keras.backend.backend() == "torch":
        export_encoder(model, "encoder.pt2", size=(32, 32))
    ```
    """
    format = format_of(path, format, ENCODER_FORMATS)
    exporter = encoder_exporter(format)
    whole = _Whole(embedder_of(model, size), mirror)
    images = keras.InputSpec(dtype="uint8", shape=(None, *size, 3), name="images")
    path = Path(path).resolve()
    held = {each.name for each in path.iterdir()} if path.is_dir() else set()
    require(
        not held or (format == "saved-model" and SAVED_MODEL in held <= OF_SAVED_MODEL),
        f"{printable(str(path))}, a folder that holds something else",
        "a path at which there is nothing, or an earlier export",
    )
    part = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        with _in_float32(whole):
            rows = [ops.convert_to_numpy(whole(batch)) for batch in _batches(size)]  # builds it
            run = _written(exporter, whole, images, str(part), format)
        _check(run, size, rows, format)
        _remove(path)
        os.replace(part, path)
    finally:
        _remove(part)


def encoder_exporter(format: EncoderFormat) -> EncoderExporter:
    """What writes a format.

    Raises:
        ValueError: Keras runs on a framework that does not.
        ImportError: a package is missing.
    """
    framework, active = FRAMEWORKS[format], keras.backend.backend()
    known = {point.name: point for point in entry_points(group=GROUP)}
    exporters: Any = known[active].load() if active in known else {}
    require(
        format in exporters,
        f"format={format!r} while Keras runs on {active!r}",
        f"Keras on {framework}",
        f"Set KERAS_BACKEND={framework}: saved models and indexes load on any framework.",
    )
    exporter: EncoderExporter = exporters[format]
    require_packages(*exporter.packages, extra=exporter.extra)
    return exporter


class _Whole(keras.Model):
    """From pixels to the rows of an index."""

    def __init__(self, model: EmbeddingModel, mirror: bool) -> None:
        super().__init__(name="pixels_to_embeddings")
        self.model, self.mirror = model, mirror

    def call(self, images: Tensor) -> Tensor:
        if not self.mirror:
            return self.model(images, training=False)
        both = ops.concatenate([images, ops.flip(images, axis=2)])
        rows = self.model(both, training=False)
        return unit(ops.sum(ops.reshape(rows, (2, -1, self.model.embedding_dim)), axis=0))


@contextmanager
def _in_float32(model: keras.Model) -> Iterator[None]:
    """Within this block, layers of mixed precision compute in float32."""
    mixed = [each for each in model._flatten_layers() if each.compute_dtype in HALF]
    policies = [layer.dtype_policy for layer in mixed]
    try:
        for layer in mixed:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(mixed, policies, strict=True):
            layer.dtype_policy = policy


def _written(
    exporter: EncoderExporter, model: keras.Model, images: keras.InputSpec, path: str, format: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Write a program and load it."""
    try:
        exporter.write(model, images, path)
        return exporter.load(path)
    except Exception as error:  # each tool has its own
        reason = " ".join(str(error).split())[:300]
        raise RuntimeError(f"This encoder cannot be written as {format}: {reason}") from error


def _batches(size: tuple[int, int]) -> list[np.ndarray]:
    """Some images, in batches of different sizes."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (batch, *size, 3), "uint8") for batch in (3, 1)]


def _check(
    run: Callable[[np.ndarray], np.ndarray],
    size: tuple[int, int],
    rows: list[np.ndarray],
    format: str,
) -> None:
    """Raise unless a program computes these rows of ``_batches``."""
    for images, wanted in zip(_batches(size), rows, strict=True):
        found = np.asarray(run(images))
        difference = np.abs(found - wanted).max() if found.shape == wanted.shape else np.inf
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"The {format} program returns other embeddings than the model: they differ by "
                f"{difference:.3g}, more than {TOLERANCE:.0e}. Nothing was written."
            )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
