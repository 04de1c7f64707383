"""The order of the data, which ``fit`` of the model sees to by itself."""

import keras


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
