"""The ranks start equal, or not at all."""

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.communicator import Communicator
from instdisc_core.validation import require

BYTES = 2**24  # of a variable, sent at a time


def require_equal(communicator: Communicator, facts: Mapping[str, Any], remedy: str = "") -> None:
    """Raise, in every process, unless all processes have the same facts. All must call it.

    Args:
        communicator: of the ranks.
        facts: by name, as JSON can hold them.
        remedy: for the message.

    Raises:
        ValueError: it names the first process that differs from process 0, and in what.

    Example: ``require_equal(Communicator(), {"seed": 0, "num_instances": 50_000})``
    """
    if communicator.processes == 1:
        return
    messages = communicator.exchange(json.dumps(dict(facts), default=str).encode())
    first, *others = map(json.loads, messages)
    for rank, other in enumerate(others, start=1):
        for name in dict.fromkeys([*first, *other]):
            require(
                first.get(name) == other.get(name),
                f"on rank {rank} {name} {_shortened(other.get(name))}",
                f"{_shortened(first.get(name))}, as on rank 0",
                remedy or "Start all ranks with the same script, arguments, data and versions.",
            )


def synchronize(communicator: Communicator, *layers: keras.Layer) -> None:
    """Give the variables of these layers, on every rank, the values of rank 0.

    The rows of a sharded bank stay: each rank has its own. ``fit`` calls it. In a training loop of
    your own, call it once before the first step with the bank and the objective, whose random
    start may differ if they were given no seed.

    Args:
        communicator: of the ranks.
        layers: built layers and models, the same ones on all ranks.

    Raises:
        ValueError: the variables have different shapes on different ranks.

    Example: ``synchronize(Communicator(), bank)``
    """
    if communicator.processes == 1:
        return
    variables = shared_variables(layers)
    shapes = [[list(v.shape), keras.backend.standardize_dtype(v.dtype)] for v in variables]
    require_equal(communicator, {f"variable {i}": shape for i, shape in enumerate(shapes)})
    for variable in variables:
        value = ops.convert_to_numpy(variable)
        data = np.ascontiguousarray(value).tobytes()
        digests = communicator.exchange(zlib.crc32(data).to_bytes(4, "big"))
        if len(set(digests)) > 1:
            data = b"".join(
                communicator.exchange(b"" if communicator.process else data[i : i + BYTES])[0]
                for i in range(0, len(data), BYTES)
            )
            variable.assign(np.frombuffer(data, value.dtype).reshape(value.shape))


def shared_variables(layers: Iterable[keras.Layer]) -> list[keras.Variable]:
    """The variables of layers that every rank has, each once; not the rows of a sharded bank."""
    found = {id(v): v for layer in layers for v in layer.variables}
    return [v for v in found.values() if not hasattr(v, "whole_shape")]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} ..."
