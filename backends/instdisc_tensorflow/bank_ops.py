"""TensorflowBankOps: in-place updates of the bank's variable."""

import tensorflow as tf

from instdisc_core import BankOps, as_stored


class TensorflowBankOps(BankOps):
    """The five primitives on TensorFlow; see ``instdisc_core.BankOps`` for what each means.

    The streaming passes are the reference's, which TensorFlow compiles into a ``while`` loop.

    Example: ``bank = MemoryBank(50_000, 128, backend="tensorflow")``
    """

    keras_backend = "tensorflow"

    def update_rows(self, bank, indices, rows):
        """See ``BankOps.update_rows``. Scatters into the variable, in eager mode, graph and XLA."""
        stored = as_stored(bank, rows)
        if not all(isinstance(variable.value, tf.Variable) for variable, _ in stored):
            return super().update_rows(bank, indices, rows)  # stateless: tensors of the caller's
        for variable, values in stored:
            variable.value.scatter_update(tf.IndexedSlices(values, indices))
