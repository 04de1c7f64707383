"""Whether a checkpoint belongs to the run that is to continue from it."""

import textwrap
from pathlib import Path
from typing import Any

import keras
from keras import ops

from instdisc_core.data.order import OrderedBatches
from instdisc_core.sharded_rows import whole_shape
from instdisc_core.validation import require


def identity(model: keras.Model, batches: OrderedBatches | None) -> dict[str, Any]:
    """What a run must share with the run that it continues, as JSON holds it."""
    optimizer = model.optimizer
    return {
        "model": [type(model).__name__, *_shapes(model)],
        "optimizer": [type(optimizer).__name__, *_shapes(optimizer)],
        "data": batches and batches.fingerprint,
        "order": batches and _order(batches),
    }


def _order(batches: OrderedBatches) -> list[Any]:
    window = batches.sliding_window
    further = [] if window is None else [window.window, window.stride]
    return [len(batches), batches.batch_size, batches.seed, *further]


def require_same_run(expected: dict[str, Any], about: dict[str, Any], path: Path) -> None:
    """Raise unless a checkpoint has this identity.

    Args:
        expected: the ``identity`` of the run.
        about: what the checkpoint says, its identity and more.
        path: of the checkpoint.
    """
    for what, value in expected.items():
        require(
            about[what] == value,
            f"{path}, whose {what} is {_shortened(about[what])}",
            _shortened(value),
            f"Give fit the {what} of the run that wrote it, or another folder.",
        )


def iterations(optimizer: keras.Optimizer) -> int:
    """How many steps an optimizer has made."""
    return int(ops.convert_to_numpy(optimizer.iterations))


def require_iterations(optimizer: keras.Optimizer, expected: int, path: Path) -> None:
    """Raise unless the optimizer made as many steps as epoch and step of a checkpoint say.

    Args:
        optimizer: after the checkpoint was loaded.
        expected: the number of steps.
        path: of the checkpoint.
    """
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)  # it skips steps
    if scales or optimizer.gradient_accumulation_steps:
        return
    made = iterations(optimizer)
    require(
        made == expected,
        f"{path}, whose optimizer made {made} steps",
        f"{expected}, as its epoch and step say",
        "Remove that checkpoint.",
    )


def without_scaling(optimizer: keras.Optimizer) -> keras.Optimizer:
    """The optimizer inside one that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _shapes(owner: keras.Model | keras.Optimizer) -> list[list[Any]]:
    """Shape and type of each variable of a model or an optimizer, as one device has them."""
    return [
        [list(whole_shape(v)), keras.backend.standardize_dtype(v.dtype)] for v in owner.variables
    ]


def _shortened(value: Any) -> str:
    return textwrap.shorten(str(value), 200, placeholder=" ...")
