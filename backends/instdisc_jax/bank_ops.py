"""JaxBankOps: compiled passes over the bank, and updates that donate it."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from inspect import signature
from typing import Any

import jax
import keras
from jax.experimental import io_callback
from keras.src.backend.common.stateless_scope import in_stateless_scope  # has no public name

from instdisc_core import BankOps


def _compiled(body: Callable[..., Any], static: tuple[str, ...] = ("self",)) -> Callable[..., Any]:
    """The reference's body, compiled, in full float32: JAX's default on a GPU is less precise."""

    @partial(jax.jit, static_argnames=static)
    @wraps(body)
    def run(self: BankOps, *args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return body(self, *args, **kwargs)

    parameters = signature(body)

    @wraps(body)
    def method(*args: Any, **kwargs: Any) -> Any:
        given = parameters.bind(*args, **kwargs).arguments
        return run(**{name: keras.tree.map_structure(_value, x) for name, x in given.items()})

    return method


def _value(x: Any) -> Any:
    return x.value if isinstance(x, keras.Variable) else x


@partial(jax.jit, donate_argnums=0)
def _overwrite(table: jax.Array, indices: jax.Array, values: jax.Array) -> jax.Array:
    return table.at[indices].set(values)


class JaxBankOps(BankOps):
    """The six primitives on JAX arrays; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's, compiled. Outside a jitted step an update donates the bank's
    old array, which can then no longer be read. That includes an array of yours that you passed to
    ``bank.rows.assign``: copy it before if you need it. In a jitted step, donate the bank together
    with the other state.

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
    _nearest = _compiled(BankOps._nearest, static=("self", "k"))
    top_k_of_first = _compiled(BankOps.top_k_of_first, static=("self", "k"))

    def write(self, variable: keras.Variable, indices: jax.Array, values: jax.Array) -> None:
        """See ``BankOps.write``. Writes in place, in a jitted step and outside."""
        value = variable.value
        if value is not variable._value:  # a stateless scope: the array is the caller's
            return super().write(variable, indices, values)
        variable.assign(_overwrite(value, indices, values))
        return None
