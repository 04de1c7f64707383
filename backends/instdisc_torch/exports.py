"""Encoders as programs of PyTorch and of ONNX."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import torch
from torch.export.passes import move_to_device_pass


class TorchExport:
    """Programs of ``torch.export``, for batches of any size."""

    packages: tuple[str, ...] = ()
    extra = "torch"

    def write(self, model: keras.Model, images: keras.InputSpec, path: str) -> None:
        """See ``instdisc_core.exports.EncoderExporter``."""
        shapes: Any = {0: torch.export.Dim("batch", min=1)}
        signature = [images]
        model.export(path, "torch", False, signature, dynamic_shapes=shapes)
        program = torch.export.load(path)
        if any(tensor.device.type != "cpu" for tensor in program.state_dict.values()):
            torch.export.save(move_to_device_pass(program, "cpu"), path)

    def load(self, path: str) -> Callable[[np.ndarray], np.ndarray]:
        """See ``instdisc_core.exports.EncoderExporter``."""
        module = torch.export.load(path).module()
        return lambda images: module(torch.as_tensor(images)).detach().numpy()


class Onnx:
    """ONNX files, from a program of ``torch.export``.

    Keras's own export traces the model with one image, and writes a graph that ONNX Runtime does
    not load, or that takes batches of one size.
    """

    packages = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"

    def write(self, model: keras.Model, images: keras.InputSpec, path: str) -> None:
        """See ``instdisc_core.exports.EncoderExporter``."""
        with TemporaryDirectory() as folder:
            program = str(Path(folder, "encoder.pt2"))
            TorchExport().write(model, images, program)
            torch.onnx.export(
                torch.export.load(program),
                f=path,
                input_names=["images"],
                output_names=["embeddings"],
                external_data=False,
                verbose=False,
            )

    def load(self, path: str) -> Callable[[np.ndarray], np.ndarray]:
        """See ``instdisc_core.exports.EncoderExporter``."""
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0]


EXPORTS = {"onnx": Onnx(), "torch-export": TorchExport()}
