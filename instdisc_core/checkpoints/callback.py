"""The callback that saves a training and restores it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from instdisc_core.checkpoints.folder import STATE, WEIGHTS, CheckpointFolder, Position
from instdisc_core.checkpoints.folder_lock import FolderLock
from instdisc_core.checkpoints.identity import (
    identity,
    iterations,
    require_iterations,
    require_same_run,
    without_scaling,
)
from instdisc_core.checkpoints.state import (
    below,
    callback_states,
    read_arrays,
    stateful,
    write_arrays,
)
from instdisc_core.communicator import Communicator, writes_files
from instdisc_core.data.order import OrderedBatches
from instdisc_core.files import remove_parts
from instdisc_core.validation import require, require_count


class Checkpoints(keras.callbacks.Callback):
    """Saves the training, so that a run that is killed at any moment can continue.

    Give it to ``InstanceDiscrimination.fit``. If the folder holds a checkpoint, ``fit`` continues
    from the newest undamaged one, also in the middle of an epoch: bank, weights, optimizer, log Z,
    random states, metrics and the states of other callbacks are bit for bit what they were. The
    same command, started again, ends with the same result as an uninterrupted run.

    The order of the images must be known for that: give ``fit`` the batches of an ImageSource, or
    arrays, which are then shuffled by seed and epoch. The order of a generator, a
    ``tf.data.Dataset`` or a ``DataLoader`` is not known. With these, training continues after the
    last whole epoch, and ``save_freq`` must be ``"epoch"``.

    A checkpoint is a folder that is written under another name, flushed to the disk, and renamed.
    It holds digests of its files. The folder is locked while ``fit`` runs. The state of another
    callback is saved if it has ``get_state()``, which returns a dict of NumPy arrays, and
    ``set_state(state)``. Of several processes the first one writes, and all restore.

    Args:
        folder: to write to, one for each run.
        save_freq: ``"epoch"`` saves after each epoch; an integer also after so many steps. If an
            epoch has fewer, it saves after the epoch in which so many steps are complete, and
            where ``fit`` ends: for epochs that take seconds.
        keep: how many checkpoints are kept, at least 1. If the only one is damaged, none is left.

    Raises:
        ValueError: ``fit`` raises it if another process uses the folder, every checkpoint in it is
            damaged, or the newest belongs to another model, optimizer or data set. The model is
            then unchanged.
        OSError: a checkpoint cannot be written. Earlier ones are still there.

    Example:
    ```python
    model.fit(photos.batches(10, seed=0), epochs=2, callbacks=[Checkpoints("run", save_freq=3)])
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        save_freq: int | Literal["epoch"] = "epoch",
        keep: int = 3,
    ) -> None:
        super().__init__()
        if save_freq != "epoch":
            require_count("save_freq", save_freq)
        require_count("keep", keep)
        self.save_freq: int | Literal["epoch"] = save_freq
        self._folder, self._lock = CheckpointFolder(folder, keep), FolderLock(folder)
        self._others: list[keras.callbacks.Callback] | None = None

    @contextmanager
    def running(
        self,
        model: keras.Model,
        batches: OrderedBatches | None,
        others: list[keras.callbacks.Callback],
        start: Position,
        epochs: int,
    ) -> Iterator[Position]:
        """Lock the folder, and restore the model from it; ``fit`` trains inside this context.

        Args:
            model: built, with its optimizer.
            batches: the training data; None if their order is not known.
            others: callbacks that ``fit`` calls before this one.
            start: where to begin if there is no checkpoint.
            epochs: where training ends.

        Yields:
            The Position to train from.
        """
        require(
            batches is not None or self.save_freq == "epoch",
            f"save_freq={self.save_freq} and data whose order is not known",
            "the batches of an ImageSource, or arrays",
            "Or set save_freq='epoch'.",
        )
        require(
            self.save_freq == "epoch" or not without_scaling(model.optimizer).use_ema,
            f"save_freq={self.save_freq} and an optimizer with use_ema=True",
            "save_freq='epoch'",
            "Keras writes the averages over the weights at the end of each call of fit.",
        )
        require(
            model.built,
            "a model that is not built",
            "a built model, whose weights can be restored",
            "Call model.build((None, height, width, channels)) first.",
        )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._batches, self._others = batches, others
        self._identity = identity(model, batches)
        self._restored: dict[str, np.ndarray] = {}
        self._epochs = epochs
        self._first_iteration = iterations(model.optimizer) - self._steps(start)
        with self._lock if writes_files(model) else nullcontext():
            found = self._newest(model)
            self._position = start if found is None else self._restore(model, *found)
            self._last = self._position
            yield self._position

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Give the other callbacks their states back."""
        require(
            self._others is not None,
            f"Checkpoints in the fit of {type(self.model).__name__}",
            "the fit of an InstanceDiscrimination, NNCLR or PIC model",
            "Keras's BackupAndRestore saves other models.",
        )
        left = {name.rpartition("/")[0] for name in self._restored if name.startswith("callback/")}
        for name, callback in stateful(self._others or ()):
            state = below(self._restored, name)
            if state:
                callback.set_state(state)
                left.discard(name)
        if left:
            warnings.warn(
                f"The checkpoint in {self._folder.folder} has states of callbacks that fit was not "
                f"given: {sorted(left)}. They are lost.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Give the metrics their values back, if the epoch had begun."""
        self._epoch = epoch
        self._first = self._position.step if epoch == self._position.epoch else 0
        self._done = self._saved = self._first
        self._is_stopped = False
        if self._first:
            values = below(self._restored, "metric")
            for i, variable in enumerate(self.model.metrics_variables):
                variable.assign(values[str(i)])

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save if this step is due, or if the epoch is stopped before its last step."""
        self._done, self._is_stopped = self._first + batch + 1, self.model.stop_training
        if self.save_freq == "epoch" or self._is_complete():
            return  # on_epoch_end saves
        is_due = self._done // self.save_freq > self._saved // self.save_freq
        if is_due or self._is_stopped:
            self._save(Position(self._epoch, self._done))
            self._saved = self._done

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save if it is due, unless the epoch was stopped before its last step: that was saved."""
        position = Position(epoch + 1, 0)
        is_last = position.epoch == self._epochs or self.model.stop_training
        if self._is_complete() and (is_last or self._is_due(position)):
            self._save(position)

    def _is_due(self, position: Position) -> bool:
        """Whether ``save_freq`` asks for a checkpoint at the end of an epoch."""
        if self.save_freq == "epoch" or self.save_freq <= len(self._batches or ()):
            return True
        return self._steps(position) - self._steps(self._last) >= self.save_freq

    def _steps(self, position: Position) -> int:
        """The steps up to a position of known batches."""
        return position.epoch * len(self._batches or ()) + position.step

    def _is_complete(self) -> bool:
        """Whether the epoch has had its last step; without known batches, if nothing stopped it."""
        if self._batches is None:
            return not self._is_stopped
        return self._done >= len(self._batches)

    def _newest(self, model: keras.Model) -> tuple[Path, dict[str, Any]] | None:
        """The newest undamaged checkpoint, which the first of several processes chooses."""
        found = None
        if writes_files(model):
            remove_parts(self._folder.folder)
            found = self._folder.newest()
        name = "" if found is None else found[0].name
        chosen = getattr(model, "communicator", Communicator()).exchange(name.encode())[0].decode()
        return self._folder.at(chosen) if chosen else None

    def _save(self, position: Position) -> None:
        model = self.model
        self._last = position
        if not writes_files(model):
            return model.help_to_save()

        def fill(folder: Path) -> dict[str, Any]:
            model.save_weights(folder / WEIGHTS)
            metrics = {f"metric/{i}": v.numpy() for i, v in enumerate(model.metrics_variables)}
            write_arrays(folder / STATE, {**metrics, **callback_states(self._others or ())})
            return {
                **self._identity,
                "first_iteration": self._first_iteration,
                "iterations": iterations(model.optimizer),
            }

        self._folder.write(position, fill)
        return None

    def _restore(self, model: keras.Model, path: Path, about: dict[str, Any]) -> Position:
        """Load a verified checkpoint into the model, and return its position."""
        require_same_run(self._identity, about, path)
        position = Position(about["epoch"], about["step"])
        self._restored = read_arrays(path / STATE)
        model.load_weights(path / WEIGHTS)
        self._first_iteration = about["first_iteration"]
        if self._batches is not None:
            expected = self._first_iteration + self._steps(position)
            require_iterations(model.optimizer, expected, path)
        return position
