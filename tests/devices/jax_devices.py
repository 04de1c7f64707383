"""What devices of JAX find, in a process of its own: all cases, each written to a folder.

``jax_devices.py FOLDER`` has four devices in one process, ``jax_devices.py FOLDER ADDRESS NUMBER``
is one of two processes, each with one device.
"""

import json
import os
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} "
    f"--xla_force_host_platform_device_count={4 if len(sys.argv) == 2 else 1}"
)

import jax
import keras
import models
import numpy as np
from devices.trainings import BATCH, CASES, build, images, numpy, outcome
from devices.trainings import batches as batches_of

from instdisc_core import Checkpoints, MemoryBank, layout_map

WHOLE = ("exact-whole",)
DIVIDED = (
    "exact-whole",  # 50 steps
    "nce-sharded",
    "shared_nce-sharded",
    "info_nce-sharded",
    "int8-sharded",
    "duplicates-sharded",
)
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2, "s8": 1, "u8": 1, "s64": 8, "u64": 8}


def distribution(whole, devices=None):
    """``DataParallel``, or ``ModelParallel`` with the rows divided, over so many devices."""
    names = keras.distribution.list_devices()[:devices]
    mesh = keras.distribution.DeviceMesh((len(names),), ["batch"], names)
    alone = {"auto_shard_dataset": False}  # each process has its own part already
    if whole:
        return keras.distribution.DataParallel(mesh, **alone)
    layouts = layout_map(mesh)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch", **alone)


@contextmanager
def within(distribution):
    keras.distribution.set_distribution(distribution)
    yield
    keras.distribution.set_distribution(None)


class Stop(keras.callbacks.Callback):
    """Interrupts a training in the middle of its second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 8:
            raise KeyboardInterrupt


class Losses(keras.callbacks.Callback):
    """The loss so far in the epoch, after each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(logs["loss"])


def trained(name, everything=False):
    """What a case ends with; with ``everything``, what it evaluates and finds too."""
    case = replace(CASES[name], sharded=False)
    model, losses = build(case), Losses()
    model.fit(batches_of(case), epochs=case.epochs, verbose=0, callbacks=[losses])
    if everything:
        return model, outcome(model, losses.found)
    return model, state(model, losses.found)


def state(model, losses=()):
    bank = model.memory_bank
    rows = [numpy(part) for part in bank.bank_ops.dump(bank.rows)]
    return {
        "losses": np.asarray(losses, "float64"),
        "rows": prod(rows),
        "weights": np.concatenate([numpy(v).ravel() for v in model.trainable_variables]),
        "log_z": np.array([numpy(value) for value in model.objective.report().values()]),
    }


def resumed(folder, how):
    """What a training ends with that was stopped in the middle, and one that was not."""
    case = replace(CASES["nce-sharded"], sharded=False, epochs=2)
    ends = []
    for name, stops in (("through", False), ("stopped", True), ("stopped", False)):
        model = build(case)
        callbacks = [Checkpoints(folder / f"{how}-{name}", save_freq=3)] + [Stop()] * stops
        try:
            model.fit(batches_of(case), epochs=2, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            continue
        ends.append(state(model))
    return {f"{name}-{i}": x for i, end in enumerate(ends) for name, x in end.items()}


def collectives(name, num_rows):
    """The sizes, in bytes, of what devices exchange in a compiled training step."""
    model = build(replace(CASES[name], sharded=False), num_rows)
    assert model.memory_bank.num_instances == num_rows
    model.optimizer.build(model.trainable_variables)
    state = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([v.value for v in variables] for variables in state)
    layout = keras.distribution.distribution().get_data_layout
    data = images()[:BATCH], np.arange(BATCH, dtype="int32")
    data = tuple(jax.device_put(x, layout(x.shape).backend_layout) for x in data)
    text = jax.jit(model.train_step, donate_argnums=0).lower(state, data).compile().as_text()
    kinds = "all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter"
    return [
        sum(
            BYTES[dtype] * prod(map(int, filter(None, shape.split(","))))
            for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result)
        )
        for result in re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", text)
    ]


def other_method(build, table):
    """The losses of a model of another method, and its rows."""
    keras.utils.set_random_seed(0)
    model = build(compiled=True)
    x = images()[:48]
    y = np.arange(48) % model.class_weights.num_rows if table == "class_weights" else np.arange(48)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    owner = getattr(model, table)
    return {
        "losses": np.array(history["loss"]),
        "rows": np.concatenate([numpy(owner.bank_ops.dump(v)[0]).ravel() for v in owner.variables]),
    }


def of_one_process(folder):
    methods = {
        "nnclr": lambda: other_method(models.small_nnclr, "support_set"),
        "pic": lambda: other_method(models.small_pic, "class_weights"),
    }
    for name in DIVIDED:
        np.savez(folder / f"one-{name}.npz", **trained(name, name in WHOLE)[1])
    for name, run in methods.items():
        np.savez(folder / f"one-{name}.npz", **run())
    with within(distribution(whole=True)):
        for name in WHOLE:
            np.savez(folder / f"whole-{name}.npz", **trained(name, True)[1])
        np.savez(folder / "whole-resumed.npz", **resumed(folder, "whole"))
    with within(distribution(whole=False)):
        for name in DIVIDED:
            model, found = trained(name, name in WHOLE)
            np.savez(folder / f"divided-{name}.npz", **found)
            model.save_weights(folder / f"{name}.weights.h5")
        for name, run in methods.items():
            np.savez(folder / f"divided-{name}.npz", **run())
        np.savez(folder / "divided-resumed.npz", **resumed(folder, "divided"))
        found = {
            name: [collectives(name, num_rows) for num_rows in (2048, 8193)]
            for name in ("exact-whole", "nce-whole", "shared_nce-whole")
        }
        (folder / "collectives.json").write_text(json.dumps(found))
    for devices in (2, 1):
        with within(distribution(whole=False, devices=devices)):
            loaded = build(replace(CASES["int8-sharded"], sharded=False))
            loaded.load_weights(folder / "int8-sharded.weights.h5")
            np.savez(folder / f"loaded-{devices}.npz", **state(loaded))
    bank_of_few(folder)


def bank_of_few(folder):
    """All of nine rows, which three of four devices hold; on a mesh of two axes too."""
    names = keras.distribution.list_devices()
    queries = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    found = {}
    for shape, axes in (((4,), ["batch"]), ((2, 2), ["batch", "model"])):
        mesh = keras.distribution.DeviceMesh(shape, axes, names)
        layouts = keras.distribution.ModelParallel(layout_map=layout_map(mesh))
        for how, where in (("one", None), ("divided", layouts)):
            with within(where):
                bank = MemoryBank(9, 4, seed=0)
                log_z, expected = bank.attend(queries, 0.1)
                scores, indices = bank.search(queries, k=9)
                for what, x in {"log_z": log_z, "row": expected, "k": indices}.items():
                    found[f"{how}-{len(shape)}-{what}"] = numpy(x)
                found[f"{how}-{len(shape)}-scores"] = numpy(scores)
    np.savez(folder / "few.npz", **found)


def of_two_processes(folder, address, number):
    os.environ["JAX_COORDINATOR_BIND_ADDRESS"] = address
    keras.distribution.initialize(address, 2, int(number))
    for how in ("whole", "divided"):
        with within(distribution(how == "whole")):
            _, found = trained("exact-whole", True)
            np.savez(folder / f"{how}-{number}.npz", **found)
            np.savez(folder / f"{how}-resumed-{number}.npz", **resumed(folder, how))


if __name__ == "__main__":
    main = of_one_process if len(sys.argv) == 2 else of_two_processes
    main(Path(sys.argv[1]), *sys.argv[2:])
