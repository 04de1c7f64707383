"""Small trainings that several ranks and one device must end alike."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from models import small_nnclr

from instdisc_core import (
    NCE,
    FeatureDecorrelation,
    InfoNCE,
    InstanceDiscrimination,
    ParametricSoftmax,
)
from instdisc_core import NonParametricSoftmax as Exact
from instdisc_core.data import ArrayBatches
from instdisc_core.heads import prediction_head, projection_head

EQUAL = 3e-5  # here the largest difference is 4e-6; other processors add in another order
N, DIM, BATCH = 49, 8, 12  # of the last batch of an epoch one image is left
OBJECTIVES = {
    "exact": lambda: Exact(0.2, proximal_weight=1.0),
    "nce": lambda: NCE(7, 0.2, proximal_weight=0.5, seed=3),
    "exact_z": lambda: NCE(5, 0.2, partition="exact", seed=3),
    "shared_nce": lambda: NCE(9, 0.2, shared_negatives=True, seed=3),
    "info_nce": lambda: InfoNCE(9, 0.2, seed=3),
    "parametric": lambda: ParametricSoftmax(0.2, seed=3),
    "decorrelated": lambda: Exact(0.2) + 0.5 * FeatureDecorrelation(2.0),
}


@keras.saving.register_keras_serializable(package="tests")
class Dimmed(layers.Layer):
    """An augmentation without chance: the second half of a batch, its second view, is darker."""

    def call(self, images):
        half = ops.shape(images)[0] // 2
        return ops.concatenate([images[:half], 0.5 * images[half:]])


@dataclass
class Case:
    """What is trained, and how."""

    objective: str = "exact"
    sharded: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)  # of the model
    normalized: bool = False  # the encoder has batch normalization
    duplicates: bool = False  # several images have the same index
    weighted: bool = False
    broken: bool = False  # some images are not finite
    epochs: int = 1
    tolerance: float = 1e-5


# A sum whose last bit differs may be rounded to another value of a coarse storage.
ROUNDED = {"objective": "nce", "tolerance": 0.02}
CASES = {
    f"{name}-{'sharded' if sharded else 'whole'}": Case(sharded=sharded, **settings)
    for sharded in (False, True)
    for name, settings in {
        "exact": {"epochs": 1 if sharded else 10},  # 50 steps
        "nce": {"objective": "nce"},
        "exact_z": {"objective": "exact_z"},
        "shared_nce": {"objective": "shared_nce"},
        "info_nce": {"objective": "info_nce", "arguments": {"embedding_dim": 16}},
        "int8": {"arguments": {"bank_dtype": "int8"}, **ROUNDED},
        "bfloat16": {"arguments": {"bank_dtype": "bfloat16"}, **ROUNDED},
        "duplicates": {"duplicates": True, "weighted": True},
        "views": {"objective": "nce", "arguments": {"views": 2, "augmenter": Dimmed()}},
    }.items()
} | {
    "decorrelated-whole": Case("decorrelated"),
    "normalized-whole": Case(normalized=True),
    "broken-whole": Case(broken=True, arguments={"non_finite": "skip"}),
}


def images():
    """Images of one size, float32."""
    return np.random.default_rng(0).standard_normal((N, 4, 4, 1)).astype("float32")


def build(case, n=N, seed=5):
    """The model of a case, compiled; the same on every rank if it has a seed."""
    if seed is not None:
        keras.utils.set_random_seed(0)
    parts = [layers.Flatten(), layers.Dense(12, activation="gelu")]
    parts += [layers.BatchNormalization(momentum=0.5)] if case.normalized else []
    settings = {"embedding_dim": DIM, **case.arguments}
    model = InstanceDiscrimination(
        keras.Sequential([keras.Input((4, 4, 1)), *parts]),
        n,
        objective=OBJECTIVES[case.objective](),
        seed=seed,
        sharded=case.sharded,
        **settings,
    )
    model.build((None, 4, 4, 1))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def batches(case, **settings):
    """The data of a case."""
    x, y = images(), np.arange(N, dtype="int32")
    if case.duplicates:
        y = (y * 7 % 10 + np.where(y < 25, 0, 20)).astype("int32")
    if case.broken:
        x[[3, 17, 30]] = np.nan
    weights = np.linspace(0.5, 2, N).astype("float32") if case.weighted else None
    return ArrayBatches(x, y, weights, BATCH, seed=1, **settings)


def numpy(x):
    return np.asarray(ops.convert_to_numpy(x), "float64")


def outcome(model, losses=(), everything=True):
    """What ranks and one device must have in common; or the state of the model alone."""
    bank = model.memory_bank
    rows = [numpy(part) for part in bank.bank_ops.dump(bank.rows)]
    report = model.objective.report()
    state = {
        "losses": np.asarray(losses, "float64"),
        "rows": rows[0] if len(rows) == 1 else rows[0] * rows[1],
        "weights": np.concatenate([numpy(v).ravel() for v in model.encoder.weights]),
        "heads": np.concatenate([numpy(v).ravel() for v in model.projector.weights]),
        "log_z": np.array([numpy(value) for value in report.values()]),
    }
    if not everything:
        return state
    x = images()
    embeddings = model.predict(x, batch_size=16, verbose=0)
    found = bank.search(embeddings[:5], k=N)
    return state | {
        "embeddings": embeddings,
        "found": numpy(found.scores),
        "evaluated": np.array(model.evaluate(x, np.arange(N), batch_size=20, verbose=0)).ravel(),
        "together": np.array(model.evaluate(batches(Case()), verbose=0)).ravel(),
        "rejected": np.array([int(numpy(model.rejected_images))]),
    }


def trained(case):
    """The outcome of a case by Keras's fit."""
    model = build(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small batches, of images left out
        history = model.fit(batches(case), epochs=case.epochs, verbose=0).history
    return outcome(model, history["loss"])


def trained_nnclr():
    """What ``NNCLR`` ends with: its queue is written over, its neighbors are drawn among two."""
    keras.utils.set_random_seed(0)
    heads = {"projector": projection_head(8, (16,)), "predictor": prediction_head(8, (16,))}
    heads |= {"augmenter": Dimmed(), "enqueue": "both"}
    model = small_nnclr(dim=8, support_set=20, top_k=2, **heads)
    data = ArrayBatches(images()[:38], np.arange(38), None, BATCH, seed=1)  # at last two images
    history = model.fit(data, epochs=2, verbose=0).history
    queue = model.support_set
    return {
        **{name: np.array(values) for name, values in history.items()},
        "rows": numpy(queue.bank_ops.dump(queue.rows)[0]),
        "queue": np.array([*numpy(queue.image_indices), numpy(queue.next), numpy(queue.fill)]),
        "weights": np.concatenate([numpy(v).ravel() for v in model.trainable_variables]),
        "embeddings": model.predict(images(), verbose=0),
        "together": np.array(model.evaluate(data, verbose=0)),
    }


def assert_equal(found, expected, tolerance=EQUAL):
    """A file holds these arrays, which another file or a dict has."""
    found = np.load(found)
    expected = expected if isinstance(expected, dict) else np.load(expected)
    assert set(found) == set(expected)
    for what in expected:
        np.testing.assert_allclose(found[what], expected[what], 0, tolerance, err_msg=what)
