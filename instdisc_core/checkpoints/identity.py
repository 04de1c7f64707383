"""Whether a checkpoint belongs to the run that is to continue from it."""

from pathlib import Path
from typing import Any

import keras
from keras import ops

from instdisc_core.data.order import OrderedBatches
from instdisc_core.sharded_rows import whole_shape
from instdisc_core.validation import require

FORMAT = 2  # of the checkpoint
WHOLE = ("int32", "int64", "uint32")


def identity(model: keras.Model, batches: OrderedBatches | None) -> dict[str, Any]:
    """What a run must share with the run that it continues, as JSON holds it."""
    optimizer = model.optimizer
    return {
        "format": FORMAT,
        "model": [type(model).__name__, *_variables(model)],
        "optimizer": [type(optimizer).__name__, *_variables(optimizer)],
        "data": batches and batches.fingerprint,
        "order": batches and _order(batches),
    }


def _order(batches: OrderedBatches) -> dict[str, Any]:
    window = batches.sliding_window
    sizes = {} if window is None else {"window": window.window, "stride": window.stride}
    numbers = {"batches": len(batches), "batch_size": batches.batch_size, "seed": batches.seed}
    return numbers | sizes


def require_same_run(expected: dict[str, Any], about: dict[str, Any], path: Path) -> None:
    """Raise unless a checkpoint has this identity.

    Args:
        expected: the ``identity`` of the run.
        about: what the checkpoint says, its identity and more.
        path: of the checkpoint.
    """
    for what, value in expected.items():
        theirs, ours = _difference(about.get(what), value)
        require(
            theirs == ours,
            f"{path}, whose {what} is {theirs}",
            ours,
            f"Give fit the {what} of the run that wrote it, or another folder.",
        )


def _difference(theirs: Any, ours: Any) -> tuple[str, str]:
    """What differs first between two parts of an identity, as each has it; equal if nothing does.

    The names of variables may differ: Keras numbers the layers that a process builds.
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted(n for n in theirs.keys() | ours.keys() if theirs.get(n) != ours.get(n))
        return _named(theirs, names), _named(ours, names)
    if not (isinstance(theirs, list) and isinstance(ours, list)):
        return str(theirs), str(ours)
    if theirs[0] != ours[0] or len(theirs) != len(ours):
        return _counted(theirs), _counted(ours)
    for one, other in zip(theirs[1:], ours[1:], strict=True):
        if one[1:] != other[1:]:
            return f"one with {_described(*one)}", f"one with {_described(*other)}"
    return "", ""


def _named(values: dict[str, Any], names: list[str]) -> str:
    return ", ".join(f"{name}={values.get(name)}" for name in names)


def _counted(part: list[Any]) -> str:
    return f"{part[0]} with {len(part) - 1} variables"


def _described(name: str, shape: list[int], kind: str) -> str:
    return f"{name} of shape {tuple(shape)} in {kind}"


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


def _variables(owner: keras.Model | keras.Optimizer) -> list[list[Any]]:
    """Name, shape and type of each variable of a model or an optimizer, as one device has them."""
    return [[v.path, list(whole_shape(v)), _kind(v)] for v in owner.variables]


def _kind(variable: keras.Variable) -> str:
    """The type of a variable's numbers; frameworks give a random state integers of other widths."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "integers" if dtype in WHOLE else dtype
