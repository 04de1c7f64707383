"""JaxBankOps: compiled passes over the bank, and updates that donate it."""

from functools import partial, wraps
from inspect import signature

import jax
import keras
from keras.src.backend.common.stateless_scope import in_stateless_scope  # has no public name

from instdisc_core import BankOps


def _compiled(body, static=("self",)):
    """The reference's body, compiled, in full float32: on a GPU, JAX's default is coarser."""

    @partial(jax.jit, static_argnames=static)
    @wraps(body)
    def run(self, *args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return body(self, *args, **kwargs)

    parameters = signature(body)

    @wraps(body)
    def method(*args, **kwargs):
        given = parameters.bind(*args, **kwargs).arguments
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, given["bank"])
        return run(**{**given, "bank": tensors})

    return method


@partial(jax.jit, donate_argnums=0)
def _overwrite(table, indices, values):
    return table.at[indices].set(values)


class JaxBankOps(BankOps):
    """The six primitives on JAX arrays; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's, compiled. Outside a jitted step an update donates the bank's
    old array, which can then no longer be read, even if it was yours and ``bank.rows.assign`` took
    it: make a copy before, if you need one. Inside, donate the bank with the other state of the
    step.

    Example: ``bank = MemoryBank(50_000, 128, backend="jax")``
    """

    keras_backend = "jax"

    def require_writable(self) -> None:
        """See ``BankOps.require_writable``."""
        traced = isinstance(jax.numpy.zeros(()), jax.core.Tracer)
        if traced and not in_stateless_scope():
            raise RuntimeError(
                "Received: a step that JAX compiles, in which the memory bank or the noise would "
                "move. Expected it inside keras.StatelessScope, which hands the new values out of "
                "the step. See examples/train_jax.py."
            )

    def __init__(self) -> None:
        if jax.default_backend() != "cpu":  # a block fills the chip, not a core's cache
            self.attend_rows = self.search_rows = 2**16

    scores = _compiled(BankOps.scores)
    combine = _compiled(BankOps.combine)
    attend = _compiled(BankOps.attend)
    top_k = _compiled(BankOps.top_k, static=("self", "k"))

    def write(self, variable: keras.Variable, indices: jax.Array, values: jax.Array) -> None:
        """See ``BankOps.write``. Writes in place, inside a jitted step and outside."""
        value = variable.value
        if value is not variable._value:  # a stateless scope: the array is the caller's
            return super().write(variable, indices, values)
        variable.assign(_overwrite(value, indices, values))
        return None
