"""JaxBankOps: compiled passes over the bank, and updates that donate it."""

from functools import partial, wraps

import jax
import keras

from instdisc_core import BankOps, as_stored


def _compiled(body, static=("self",)):
    """The reference's body, compiled, in full float32: on a GPU, JAX's default is coarser."""

    @partial(jax.jit, static_argnames=static)
    @wraps(body)
    def run(self, *args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return body(self, *args, **kwargs)

    @wraps(body)
    def method(self, first, bank, *args, **kwargs):
        bank = keras.tree.map_structure(keras.ops.convert_to_tensor, bank)
        return run(self, first, bank, *args, **kwargs)

    return method


@partial(jax.jit, donate_argnums=0)
def _overwrite(table, indices, rows):
    return table.at[indices].set(rows)


class JaxBankOps(BankOps):
    """The five primitives on JAX arrays; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's, compiled. Outside a jitted step an update donates the bank's
    old array, which can then no longer be read: take a copy of ``bank.rows`` before, if you need
    one. Inside, donate the bank with the other state of the step.

    Example: ``bank = MemoryBank(50_000, 128, backend="jax")``
    """

    keras_backend = "jax"

    def __init__(self):
        if jax.default_backend() != "cpu":  # a block fills the chip, not a core's cache
            self.attend_rows = self.search_rows = 2**16

    scores = _compiled(BankOps.scores)
    combine = _compiled(BankOps.combine)
    attend = _compiled(BankOps.attend)
    top_k = _compiled(BankOps.top_k, static=("self", "k"))

    def update_rows(self, bank, indices, rows):
        """See ``BankOps.update_rows``. Writes in place, inside a jitted step and outside."""
        stored = as_stored(bank, rows)
        if any(variable.value is not variable._value for variable, _ in stored):
            return super().update_rows(
                bank, indices, rows
            )  # stateless: the arrays are the caller's
        for variable, values in stored:
            variable.assign(_overwrite(variable.value, indices, values))
