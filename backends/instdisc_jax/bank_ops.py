"""JaxBankOps: compiled passes over the bank, and updates that donate it."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import signature
from typing import Any, TypeAlias

import jax
import keras
import numpy as np
from jax.experimental import io_callback
from keras.src.backend.common.stateless_scope import in_stateless_scope  # has no public name

from instdisc_core import BankOps, QuantizedRows
from instdisc_jax.divided import (
    Division,
    divided_array,
    divided_shape,
    division_of,
    host_copy,
    on_own_rows,
)

Bank: TypeAlias = keras.Variable | jax.Array | QuantizedRows


def _compiled(body: Callable[..., Any], static: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The reference's body, compiled, in full float32: JAX's default on a GPU is less precise.

    If the rows of the bank are divided among devices, it runs on each with the device's own.
    """

    @partial(jax.jit, static_argnames=("self", "division", *static))
    def run(self: BankOps, division: Division | None, **given: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            if division is None:
                return body(self, **given)
            return on_own_rows(division, self, body.__name__, **given)

    parameters = signature(body)

    @wraps(body)
    def method(*args: Any, **kwargs: Any) -> Any:
        given = parameters.bind(*args, **kwargs).arguments
        values = {name: keras.tree.map_structure(_value, x) for name, x in given.items()}
        return run(division=division_of(given["bank"]), **values)

    return method


def _value(x: Any) -> Any:
    return x.value if isinstance(x, keras.Variable) else x


def _overwrite(table: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
    return table.at[indices].set(values)


def _overwrite_own(division: Division, bank: jax.Array, **given: jax.Array) -> jax.Array:
    return on_own_rows(division, BankOps(), "overwritten", bank, **given)


_overwrite_donated = jax.jit(_overwrite, donate_argnums=0)
_overwrite_own_donated = jax.jit(_overwrite_own, static_argnums=0, donate_argnums=1)


class JaxBankOps(BankOps):
    """The six primitives on JAX arrays; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's, compiled. Outside a jitted step an update donates the bank's
    old array, which can then no longer be read. That includes an array of yours that you passed to
    ``bank.rows.assign``: copy it before if you need it. In a jitted step, donate the bank together
    with the other state.

    A bank whose rows ``keras.distribution.ModelParallel`` divides among devices stays where it is:
    every device works on the rows that it holds. See ``instdisc_core.layout_map``.

    Example: ``bank = MemoryBank(50_000, 128, backend="jax")``
    """

    keras_backend = "jax"

    def require_writable(self) -> None:
        """See ``BankOps.require_writable``."""
        if self.is_compiling() and not in_stateless_scope():
            raise RuntimeError(
                "Received: a step that JAX compiles, which would change the memory bank or the "
                "noise. Expected it inside keras.StatelessScope, which returns the new values from "
                "the step. See examples/train_jax.py."
            )

    def is_compiling(self) -> bool:
        """See ``HostCalls.is_compiling``."""
        return isinstance(jax.numpy.zeros(()), jax.core.Tracer)

    def on_host(
        self, function: Callable, results: Sequence[tuple[tuple, str]], *tensors: jax.Array
    ) -> list[jax.Array]:
        """See ``HostCalls.on_host``. In a compiled step a callback, in the order of the step."""
        if not self.is_compiling():
            self.settle()
            return super().on_host(function, results, *tensors)
        shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in results]

        def call(*arrays: jax.Array) -> Sequence[Any]:
            found = function(*jax.device_get(arrays))
            return found if results else []

        return io_callback(call, shapes, *tensors, ordered=True)

    def settle(self) -> None:
        """See ``HostCalls.settle``."""
        jax.effects_barrier()

    def from_host(self, array: Any) -> jax.Array:
        """See ``HostCalls.from_host``. A copy: JAX may keep the memory of an array."""
        return jax.numpy.array(array, copy=True)

    def __init__(self) -> None:
        if jax.default_backend() != "cpu":  # a block should fill the chip, not a core's cache
            self.attend_rows = self.search_rows = 2**16

    scores = _compiled(BankOps.scores)
    combine = _compiled(BankOps.combine)
    attend = _compiled(BankOps.attend)
    _nearest = _compiled(BankOps._nearest, static=("k",))
    top_k_of_first = _compiled(BankOps.top_k_of_first, static=("k",))
    _rows_as_stored = _compiled(BankOps.rows)

    def rows(self, bank: Bank, indices: jax.Array) -> jax.Array:
        """See ``BankOps.rows``."""
        if division_of(bank) is None:
            return super().rows(bank, indices)
        found = self._rows_as_stored(bank, indices)
        if isinstance(found, QuantizedRows):
            return found.values * found.scale
        return found.astype("float32")

    def update_rows(
        self, bank: Bank, indices: jax.Array, rows: jax.Array, moves: jax.Array
    ) -> None:
        """See ``BankOps.update_rows``. Writes in place, in a jitted step and outside."""
        division = division_of(bank)
        if division is None:
            return super().update_rows(bank, indices, rows, moves)
        stored = QuantizedRows.of(rows) if isinstance(bank, QuantizedRows) else rows
        for variable, new in zip(keras.tree.flatten(bank), keras.tree.flatten(stored), strict=True):
            write = _overwrite_own if _is_the_caller_s(variable) else _overwrite_own_donated
            given = {"indices": indices, "values": new, "moves": moves}
            variable.assign(write(division, variable.value, **given))
        return None

    def write(self, variable: keras.Variable, indices: jax.Array, values: jax.Array) -> None:
        """See ``BankOps.write``. Writes in place, in a jitted step and outside."""
        if _is_the_caller_s(variable):
            return super().write(variable, indices, values)
        variable.assign(_overwrite_donated(variable.value, indices, values))
        return None

    def divided_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...] | None:
        """See ``BankOps.divided_shape``: the layout of the active distribution decides."""
        return divided_shape(path, shape)

    def dump(self, bank: Bank) -> list[np.ndarray]:
        """See ``BankOps.dump``. Of several processes all must call it."""
        return [host_copy(table) for table in keras.tree.flatten(bank)]

    def load(self, bank: Bank, arrays: Sequence[np.ndarray]) -> None:
        """See ``BankOps.load``."""
        for table, array in zip(keras.tree.flatten(bank), arrays, strict=True):
            divided = division_of(table) is not None
            table.assign(divided_array(table, array) if divided else array)


def _is_the_caller_s(variable: keras.Variable) -> bool:
    """Whether its value is that of a stateless scope, which must not be donated."""
    return variable.value is not variable._value
