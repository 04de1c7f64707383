"""What ``fit`` of the model brings along by itself."""

import keras
from keras import ops

from instdisc_core.validation import require


class RefusedIndices(keras.callbacks.Callback):
    """Raises at the end of an epoch in which a compiled step met an index without a row."""

    def on_train_begin(self, logs=None):
        """Remember the count so far."""
        self._before = self._count()

    def on_epoch_end(self, epoch, logs=None):
        """Compare."""
        refused = self._count() - self._before
        bank = self.model.memory_bank
        require(
            refused == 0,
            f"{refused} instance indices in epoch {epoch + 1} that name no row",
            f"values in [0, {bank.num_instances})",
            "They trained nothing, and the bank did not move for them. Number the images "
            "0, 1, 2, ... in a fixed order.",
        )

    def _count(self):
        return int(ops.convert_to_numpy(self.model.memory_bank.refused_indices))


class DataOrder(keras.callbacks.Callback):
    """Tells the batches which epoch it is, and the model which data its bank belongs to.

    Args:
        batches: the OrderedBatches that are trained on.
    """

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        """Set the epoch; a checkpoint that another callback restored has been read by now."""
        manifest = self.batches.manifest
        if manifest is not None:
            self.model.check_data(manifest)
            self.model.manifest = manifest
        self.batches.epoch = epoch
