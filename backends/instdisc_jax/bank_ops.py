"""JaxBankOps: compiled passes over the bank, and updates that donate it."""

from functools import partial

import jax
import keras

from instdisc_core import BankOps

_reference = BankOps()
_scores = jax.jit(_reference.scores)
_combine = jax.jit(_reference.combine)
_attend = jax.jit(_reference.attend)
_top_k = jax.jit(_reference.top_k, static_argnames="k")


@partial(jax.jit, donate_argnums=0)
def _overwrite(bank, indices, rows):
    return bank.at[indices].set(rows.astype(bank.dtype))


class JaxBankOps(BankOps):
    """The five primitives on JAX arrays; see ``instdisc_core.BankOps`` for what each means.

    The bodies are the reference's, compiled. Outside a jitted step an update donates the bank's
    old array, which can then no longer be read: take a copy of ``bank.rows`` before, if you need
    one. Inside, donate the bank with the other state of the step.

    Example: ``bank = MemoryBank(50_000, 128, backend="jax")``
    """

    keras_backend = "jax"

    def scores(self, features, bank, indices):
        """See ``BankOps.scores``."""
        return _scores(features, keras.ops.convert_to_tensor(bank), indices)

    def combine(self, weights, bank, indices):
        """See ``BankOps.combine``."""
        return _combine(weights, keras.ops.convert_to_tensor(bank), indices)

    def attend(self, features, bank, temperature):
        """See ``BankOps.attend``."""
        return _attend(features, keras.ops.convert_to_tensor(bank), temperature)

    def update_rows(self, bank, indices, rows):
        """See ``BankOps.update_rows``. Writes in place, inside a jitted step and outside."""
        value = bank.value
        if value is not bank._value:  # a stateless scope: the array is the caller's
            return super().update_rows(bank, indices, rows)
        bank.assign(_overwrite(value, indices, rows))

    def top_k(self, features, bank, k):
        """See ``BankOps.top_k``."""
        return _top_k(features, keras.ops.convert_to_tensor(bank), k)
