"""TensorflowBankOps: in-place updates of the bank's variable."""

import tensorflow as tf

from instdisc_core import BankOps


class TensorflowBankOps(BankOps):
    """The five primitives on TensorFlow; see ``instdisc_core.BankOps`` for what each means.

    The streaming passes are the reference's, which TensorFlow compiles into a ``while`` loop.

    Example: ``bank = MemoryBank(50_000, 128, backend="tensorflow")``
    """

    keras_backend = "tensorflow"

    def update_rows(self, bank, indices, rows):
        """See ``BankOps.update_rows``. Scatters into the variable, in eager mode, graph and XLA."""
        variable = bank.value
        if not isinstance(variable, tf.Variable):  # a stateless scope: a tensor of the caller's
            return super().update_rows(bank, indices, rows)
        variable.scatter_update(tf.IndexedSlices(tf.cast(rows, variable.dtype), indices))
