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

    Example:
    ```python
    from instdisc_core.devices import require_equal

    require_equal(Communicator(), {"seed": 0, "num_instances": 50_000})
    ```
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

    Example:
    ```python
    from instdisc_core.devices import synchronize

    synchronize(bank.communicator, bank)
    ```
    """
    if communicator.processes == 1:
        return
    variables = shared_variables(layers)
    shapes = [[list(v.shape), keras.backend.standardize_dtype(v.dtype)] for v in variables]
    require_equal(communicator, {f"variable {i}": shape for i, shape in enumerate(shapes)})
    digests = np.array([zlib.crc32(_bytes(variable)) for variable in variables], ">u4")
    found = [np.frombuffer(x, ">u4") for x in communicator.exchange(digests.tobytes())]
    for i in np.flatnonzero(np.any(np.stack(found) != found[0], axis=0)):
        _send(communicator, variables[i])


def require_same_values(communicator: Communicator, variables: Iterable[keras.Variable]) -> None:
    """Raise, in every process, unless these variables are the same in all of them.

    Compared is one number of each variable, a weighted sum that differs where a row does.

    Args:
        communicator: of the ranks.
        variables: the same ones on all ranks.

    Raises:
        ValueError: it names the first process that differs from process 0, and the variable.

    Example:
    ```python
    from instdisc_core.devices import require_same_values

    require_same_values(bank.communicator, bank.variables)
    ```
    """
    if communicator.processes == 1:
        return
    variables = list(variables)
    sums = np.array([_weighted_sum(variable) for variable in variables], "float64")
    first, *others = (np.frombuffer(x) for x in communicator.exchange(sums.tobytes()))
    for rank, other in enumerate(others, start=1):
        for variable, a, b in zip(variables, first, other, strict=True):
            tolerance = 1e-4 + 1e-5 * np.sqrt(np.prod(variable.shape))
            require(
                bool(np.isclose(a, b, 0, tolerance, equal_nan=True)),
                f"{variable.path} of rank {rank}, which is not that of rank 0",
                "the same values on all ranks",
                "Something moved it on one rank alone, such as an update with that rank's images. "
                "Give all ranks the whole batch: communicator.whole_batch(features, indices).",
            )


def shared_variables(layers: Iterable[keras.Layer]) -> list[keras.Variable]:
    """The variables of layers that every rank has, each once; not the rows of a sharded bank."""
    found = {id(v): v for layer in layers for v in layer.variables}
    return [v for v in found.values() if not hasattr(v, "whole_shape")]


def _bytes(variable: keras.Variable) -> bytes:
    return np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes()


def _send(communicator: Communicator, variable: keras.Variable) -> None:
    """Give a variable the value of process 0."""
    value, data = ops.convert_to_numpy(variable), _bytes(variable)
    whole = b"".join(
        communicator.exchange(b"" if communicator.process else data[i : i + BYTES])[0]
        for i in range(0, len(data), BYTES)
    )
    variable.assign(np.frombuffer(whole, value.dtype).reshape(value.shape))


def _weighted_sum(variable: keras.Variable) -> float:
    values = ops.convert_to_numpy(variable).astype("float32")
    rows = np.atleast_1d(values).reshape(len(np.atleast_1d(values)), -1)
    rng = np.random.default_rng(0)
    of_columns = rng.uniform(-1, 1, rows.shape[1]).astype("float32")
    return float((rows @ of_columns).astype("float64") @ rng.uniform(-1, 1, len(rows)))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} ..."
