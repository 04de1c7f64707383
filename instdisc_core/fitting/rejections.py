"""Reports at the end of an epoch what its steps left out: a compiled step cannot raise."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.validation import require


class Rejections(keras.callbacks.Callback):
    """Counts what an epoch left out. Subclasses define ``counter`` and ``report``."""

    def counter(self) -> keras.Variable:
        """The variable that counts; it never falls."""
        raise NotImplementedError

    def report(self, count: int, epoch: int) -> None:
        """Report how many an epoch left out, which may be 0."""
        raise NotImplementedError

    _before: int | None = None  # in an epoch, the count when it began

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an epoch that was interrupted."""
        self._before = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Store the count so far; other callbacks may have loaded weights, with a count, before."""
        if self._before is None:
            self._before = self._count()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Report what this epoch added to the count."""
        added = self._count() - (self._before or 0)
        self._before = None
        self.report(added, epoch)

    def get_state(self) -> dict[str, np.ndarray]:
        """The count when the epoch began, for a run that is resumed in the middle of it."""
        return {"before": np.asarray(self._count() if self._before is None else self._before)}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Restore what ``get_state`` returned."""
        self._before = int(state["before"])

    def _count(self) -> int:
        return int(ops.convert_to_numpy(self.counter()))


class RejectedIndices(Rejections):
    """Raises at the end of an epoch in which a compiled step got an index without a row."""

    def counter(self) -> keras.Variable:
        """The counter of the rows of the images."""
        return self.model.instance_rows().rejected_indices

    def report(self, count: int, epoch: int) -> None:
        """Raise if there were any."""
        require(
            count == 0,
            f"{count} instance indices in epoch {epoch + 1} that name no row",
            f"values in [0, {self.model.instance_rows().num_rows})",
            "They trained nothing and moved no row. Number the images 0, 1, 2, ... in a fixed "
            "order.",
        )


class RejectedGradients(Rejections):
    """Warns at the end of an epoch in which class weights got gradients that are not finite."""

    def counter(self) -> keras.Variable:
        """The counter of the class weights."""
        return self.model.class_weights.rejected_gradients

    def report(self, count: int, epoch: int) -> None:
        """Warn if there were any."""
        if count:
            warnings.warn(
                f"Received: {count} gradients of class weights in epoch {epoch + 1} that are not "
                "finite. Expected finite ones. They moved no weight: lower the learning rate.",
                stacklevel=2,
            )


class NonFiniteImages(Rejections):
    """Reports images whose pixels are not finite: an error, or a warning for each epoch.

    The model's ``non_finite`` decides which. The images trained nothing in either case.
    """

    def counter(self) -> keras.Variable:
        """The counter of the model."""
        return self.model.rejected_images

    def report(self, count: int, epoch: int) -> None:
        """Raise or warn if there were any."""
        received = f"{count} images in epoch {epoch + 1} with pixels that are not finite"
        if self.model.non_finite == "skip":
            if count:
                warnings.warn(f"{received}. They were left out.", stacklevel=2)
            return
        require(
            count == 0,
            received,
            "finite pixels",
            "They trained nothing. Remove them, or build the model with non_finite='skip'.",
        )
