"""Runs in a process of its own, under the backend that KERAS_BACKEND names."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import keras
import numpy as np

from instdisc_core import NCE, NNCLR, Checkpoints, InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.heads import prediction_head, projection_head

N, WIDTH, D = 48, 10, 6
IMAGES = np.random.default_rng(0).standard_normal((N, WIDTH)).astype("float32")


def fit(model, epochs, **more):
    history = model.fit(
        IMAGES, np.arange(N), batch_size=16, epochs=epochs, shuffle=False, verbose=0, **more
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


def with_neighbors():
    """An NNCLR model, of which some rows of the support set are written."""
    encoder = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(16, "gelu")])
    heads = {"projector": projection_head(D, (8,)), "predictor": prediction_head(D, (8,))}
    noise = keras.layers.GaussianNoise(0.1, seed=0)
    model = NNCLR(encoder, D, 40, augmenter=noise, top_k=2, enqueue="both", seed=0, **heads)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    model.fit(IMAGES[:17], batch_size=17, verbose=0)
    return model


def state_of_neighbors(model):
    support_set = model.support_set
    held = (support_set.rows, support_set.image_indices, support_set.next, support_set.fill)
    return {
        "held": [keras.ops.convert_to_numpy(part).tolist() for part in held],
        "embeddings": model.predict(IMAGES, verbose=0).tolist(),
        "loss": model.evaluate(IMAGES, verbose=0, return_dict=True)["loss"],
    }


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
    fit(sampled, 2, callbacks=[Checkpoints(f"{folder}/checkpoints-{backend}")])
    sampled.save(f"{folder}/sampled-{backend}.keras")
    log_z = float(keras.ops.convert_to_numpy(sampled.objective.partition.log_z))
    nnclr = with_neighbors()
    nnclr.save(f"{folder}/nnclr-{backend}.keras")
    neighbors = state_of_neighbors(nnclr)
    results = {"neighbors": neighbors, "exact": state(exact), "log_z": log_z, "next": fit(exact, 3)}
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
        nnclr = keras.saving.load_model(f"{folder}/nnclr-{backend}.keras")
        continued = model_with(NCE(8, 0.2, seed=3))
        place = f"{folder}/{keras.backend.backend()}-of-{backend}"
        shutil.copytree(f"{folder}/checkpoints-{backend}", place)
        results[backend] = {
            "continued": fit(continued, 3, callbacks=[Checkpoints(place)]),
            "neighbors": state_of_neighbors(nnclr),
            "exact": state(exact),
            "log_z": log_z,
            "next": fit(exact, 3),
        }
        fit(sampled, 1)
        fit(nnclr, 1)
    return results


if __name__ == "__main__":
    task, folder, *arguments = sys.argv[1:]
    if task == "save":
        script(*arguments)
        result = save(folder, keras.backend.backend())
    else:
        if keras.backend.backend() == "tensorflow":  # compiling nine models takes longer
            import tensorflow as tf

            tf.config.run_functions_eagerly(True)
        result = load(folder, arguments)
    print("RESULT", json.dumps(result))
