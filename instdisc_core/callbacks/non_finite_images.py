"""A report, once per epoch, of training images that were left out."""

import warnings

import keras
from keras import ops

from instdisc_core.validation import require


class NonFiniteImages(keras.callbacks.Callback):
    """Reports the images of an epoch whose pixels are not finite: an error, or a warning.

    The model's ``non_finite`` decides which. Either way they trained nothing.
    """

    def on_train_begin(self, logs=None):
        """Remember the count so far."""
        self._before = self._count()

    def on_epoch_end(self, epoch, logs=None):
        """Compare."""
        count = self._count()
        rejected, self._before = count - self._before, count
        received = f"{rejected} images in epoch {epoch + 1} with pixels that are not finite"
        if self.model.non_finite == "skip":
            if rejected:
                warnings.warn(f"{received}. They were left out.", stacklevel=2)
            return
        require(
            rejected == 0,
            received,
            "finite pixels",
            "They trained nothing. Remove them, or build the model with non_finite='skip'.",
        )

    def _count(self):
        return int(ops.convert_to_numpy(self.model.rejected_images))
