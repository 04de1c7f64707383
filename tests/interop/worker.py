"""Runs in a process of its own, under the backend that KERAS_BACKEND names."""

import json
import runpy
import sys
from pathlib import Path

import keras
import numpy as np

from instdisc_core import NCE, InstanceDiscrimination, NonParametricSoftmax

N, WIDTH, D = 48, 10, 6
IMAGES = np.random.default_rng(0).standard_normal((N, WIDTH)).astype("float32")


def fit(model, epochs):
    history = model.fit(
        IMAGES, np.arange(N), batch_size=16, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history["loss"]


def model_with(objective):
    """A model whose every weight comes from NumPy, so that it is equal everywhere."""
    encoder = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(16, "gelu")])
    model = InstanceDiscrimination(encoder, N, D, objective, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    model.build((None, WIDTH))
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.standard_normal(variable.shape).astype("float32") / 4)
    return model


def state(model):
    return {
        "rows": keras.ops.convert_to_numpy(model.memory_bank.rows).tolist(),
        "embeddings": model.predict(IMAGES, verbose=0).tolist(),
        "loss": model.evaluate(IMAGES, np.arange(N), verbose=0, return_dict=True)["loss"],
    }


def exact_losses():
    return fit(model_with(NonParametricSoftmax(0.07, proximal_weight=1.0)), epochs=6)


def save(folder, backend):
    """One model whose loss is the same everywhere, one that holds state of every kind."""
    exact = model_with(NonParametricSoftmax(0.2))
    fit(exact, 2)
    exact.save(f"{folder}/exact-{backend}.keras")
    sampled = model_with(NCE(8, 0.2, seed=3))
    fit(sampled, 2)
    sampled.save(f"{folder}/sampled-{backend}.keras")
    log_z = float(keras.ops.convert_to_numpy(sampled.objective.partition.log_z))
    results = {"exact": state(exact), "log_z": log_z, "next": fit(exact, 3)}
    return {**results, "losses": exact_losses()}


def script(name, *objectives):
    """Run a script of this folder once for each objective."""
    for sys.argv[1:] in ([objective] for objective in objectives):
        runpy.run_path(str(Path(__file__).with_name(name)), run_name="__main__")


def load(folder, backends):
    results = {}
    for backend in backends:
        exact = keras.saving.load_model(f"{folder}/exact-{backend}.keras")
        sampled = keras.saving.load_model(f"{folder}/sampled-{backend}.keras")
        log_z = float(keras.ops.convert_to_numpy(sampled.objective.partition.log_z))
        results[backend] = {"exact": state(exact), "log_z": log_z, "next": fit(exact, 3)}
        fit(sampled, 1)
    return results


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    backend = keras.backend.backend()
    result = {
        "save": lambda folder: save(folder, backend),
        "script": script,
        "load": lambda folder, *backends: load(folder, backends),
    }[task](*arguments)
    if result is not None:
        print("RESULT", json.dumps(result))
