"""Continuing in the middle of an epoch: Keras's ``fit`` is called once for the rest of it."""

from collections.abc import Iterator
from typing import Any

import keras

from instdisc_core.data.order import OrderedBatches


def resumed(
    model: keras.Model, batches: OrderedBatches, arguments: dict[str, Any], step: int
) -> Iterator[dict[str, Any]]:
    """The arguments of two calls: the rest of an epoch, and the epochs after it.

    Args:
        model: what is trained.
        batches: of the data, which begin at ``step`` in the first call.
        arguments: of ``fit``; ``initial_epoch`` is the epoch that was begun.
        step: how many steps of that epoch are done.
    """
    verbose, epoch = arguments["verbose"], arguments["initial_epoch"]
    given = arguments["callbacks"]
    callbacks = _OneTraining(
        getattr(given, "callbacks", given),
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=arguments["epochs"],
        steps=len(batches),
        model=model,
    )
    batches.start = step
    yield {**arguments, "callbacks": callbacks, "epochs": epoch + 1}
    batches.start = 0
    callbacks.is_last = True
    following = arguments["epochs"] if model.stop_training else epoch + 1
    yield {**arguments, "callbacks": callbacks, "initial_epoch": following}


class _OneTraining(keras.callbacks.CallbackList):
    """Callbacks for which several calls of ``fit`` are one training."""

    begun, is_last = False, False
    logs: dict[str, Any] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.logs = logs or self.logs  # the last call has no logs if it has no epoch
        if self.is_last:
            super().on_train_end(self.logs)
