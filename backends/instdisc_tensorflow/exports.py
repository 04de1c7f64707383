"""Encoders as programs of TensorFlow and of LiteRT."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


class SavedModel:
    """Folders of TensorFlow, as TensorFlow Serving reads them."""

    packages: tuple[str, ...] = ()
    extra = "tensorflow"

    def write(self, model: keras.Model, images: keras.InputSpec, path: str) -> None:
        """See ``instdisc_core.exports.EncoderExporter``."""
        model.export(path, "tf_saved_model", False, [images])

    def load(self, path: str) -> Callable[[np.ndarray], np.ndarray]:
        """See ``instdisc_core.exports.EncoderExporter``."""
        loaded = tf.saved_model.load(path)
        return lambda images: loaded.serve(images).numpy()


class LiteRT:
    """Files of LiteRT, formerly TensorFlow Lite."""

    packages = ("ai_edge_litert",)
    extra = "litert"

    def write(self, model: keras.Model, images: keras.InputSpec, path: str) -> None:
        """See ``instdisc_core.exports.EncoderExporter``."""
        model.export(path, "litert", False, [images])

    def load(self, path: str) -> Callable[[np.ndarray], np.ndarray]:
        """See ``instdisc_core.exports.EncoderExporter``."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=path)
        (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images: np.ndarray) -> np.ndarray:
            interpreter.resize_tensor_input(inputs["index"], images.shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(inputs["index"], images)
            interpreter.invoke()
            return interpreter.get_tensor(outputs["index"])

        return run


EXPORTS = {"saved-model": SavedModel(), "litert": LiteRT()}
