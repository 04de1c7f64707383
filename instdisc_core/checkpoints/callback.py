"""Checkpoints while a model trains, and the way back to where it was."""

import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import keras
import numpy as np
from keras import ops

from instdisc_core.checkpoints.folder import STATE, WEIGHTS, CheckpointFolder, Position
from instdisc_core.checkpoints.folder_lock import FolderLock
from instdisc_core.data.batches import OrderedBatches
from instdisc_core.files import remove_parts
from instdisc_core.validation import require, require_count


class Checkpoints(keras.callbacks.Callback):
    """Saves the training, so that a run that is killed at any moment continues as if it was not.

    Give it to ``InstanceDiscrimination.fit``. If the folder holds a checkpoint, ``fit`` continues
    from the newest one that is undamaged, in the middle of an epoch too: bank, weights, optimizer,
    log Z, random states, metrics and what other callbacks remember are bit for bit what they were.
    The same command, started again, ends where an uninterrupted run ends.

    The order of the images must be known for that: give ``fit`` the batches of an ImageSource, or
    arrays, which are then shuffled by seed and epoch. A generator, a ``tf.data.Dataset`` or a
    ``DataLoader`` has an order of its own: there training continues after the last whole epoch, and
    ``save_freq`` must be ``"epoch"``.

    A checkpoint is a folder that is written aside, flushed to the disk, and renamed. It holds
    digests of its files. The folder is locked while ``fit`` runs. Another callback takes part if it
    has ``get_state()``, which returns a dict of NumPy arrays, and ``set_state(state)``.

    Args:
        folder: to write to, one for each run.
        save_freq: ``"epoch"`` saves after each epoch; an integer also after so many steps.
        keep: how many checkpoints stay, at least 1. With one, nothing replaces a damaged one.

    Raises:
        ValueError: ``fit`` raises it if another process uses the folder, every checkpoint in it is
            damaged, or the newest belongs to another model, optimizer or data set. The model is
            then unchanged.
        OSError: a checkpoint cannot be written. Those before it are still there.

    Example:
    ```python
    model.fit(photos.batches(128, seed=0), epochs=200, callbacks=[Checkpoints("run", 100)])
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        save_freq: int | Literal["epoch"] = "epoch",
        keep: int = 3,
    ):
        super().__init__()
        if save_freq != "epoch":
            require_count("save_freq", save_freq)
        require_count("keep", keep)
        self.save_freq, self._folder = save_freq, CheckpointFolder(folder, keep)
        self._lock = FolderLock(folder)
        self._others: list[keras.callbacks.Callback] | None = None

    @contextmanager
    def running(
        self,
        model: keras.Model,
        batches: OrderedBatches | None,
        others: list[keras.callbacks.Callback],
        start: Position,
    ) -> Iterator[Position]:
        """Hold the folder, and restore the model from it; ``fit`` trains inside this context.

        Args:
            model: built, with its optimizer.
            batches: that it trains on; None where they have an order of their own.
            others: callbacks that ``fit`` runs before this one.
            start: where to begin without a checkpoint.

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
            self.save_freq == "epoch" or not _innermost(model.optimizer).use_ema,
            f"save_freq={self.save_freq} and an optimizer with use_ema=True",
            "save_freq='epoch'",
            "Keras writes the averages over the weights where a call of fit ends.",
        )
        require(
            model.built,
            "a model that is not built",
            "one whose weights are there to be restored",
            "Call model.build((None, height, width, channels)) first.",
        )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._batches, self._others = batches, others
        self._identity = _identity(model, batches)
        self._restored: dict[str, np.ndarray] = {}
        self._first_iteration = _iterations(model) - start.epoch * len(batches or ())
        with self._lock:
            remove_parts(self._folder.folder)
            found = self._folder.newest()
            self._position = start if found is None else self._restore(model, *found)
            yield self._position

    def on_train_begin(self, logs=None):
        """Give the other callbacks their states back."""
        require(
            self._others is not None,
            f"Checkpoints in the fit of {type(self.model).__name__}",
            "that of an InstanceDiscrimination model",
        )
        left = {name.rpartition("/")[0] for name in self._restored if name.startswith("callback/")}
        for name, callback in self._stateful():
            state = _part(self._restored, name)
            if state:
                callback.set_state(state)
                left.discard(name)
        if left:
            warnings.warn(
                f"The checkpoint in {self._folder.folder} has states of callbacks that fit was not "
                f"given: {sorted(left)}. They are lost.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch, logs=None):
        """Give the metrics of an epoch that was begun their values back."""
        self._epoch = epoch
        self._first = self._position.step if epoch == self._position.epoch else 0
        self._done = self._saved = self._first
        self._is_stopped = False
        if self._first:
            values = _part(self._restored, "metric")
            for i, variable in enumerate(self.model.metrics_variables):
                variable.assign(values[str(i)])

    def on_train_batch_end(self, batch, logs=None):
        """Save, if it is this step's turn, or if the epoch ends here before its last step."""
        self._done, self._is_stopped = self._first + batch + 1, self.model.stop_training
        if self.save_freq == "epoch" or self._is_complete():
            return  # after its last step, an epoch is saved when it is over
        is_due = self._done // self.save_freq > self._saved // self.save_freq
        if is_due or self._is_stopped:
            self._save(Position(self._epoch, self._done))
            self._saved = self._done

    def on_epoch_end(self, epoch, logs=None):
        """Save, unless the epoch was stopped before its last step: that step was saved."""
        if self._is_complete():
            self._save(Position(epoch + 1, 0))

    def _is_complete(self):
        """Whether the epoch has had its last step, as far as that can be known."""
        if self._batches is None:
            return not self._is_stopped
        return self._done >= len(self._batches)

    def _save(self, position):
        model = self.model

        def fill(folder):
            model.save_weights(folder / WEIGHTS)
            states = {f"metric/{i}": v.numpy() for i, v in enumerate(model.metrics_variables)}
            for name, callback in self._stateful():
                states |= {f"{name}/{k}": np.asarray(v) for k, v in callback.get_state().items()}
            for name, array in states.items():
                require(
                    not array.dtype.hasobject,
                    f"{name} of dtype object in the state of a callback",
                    "arrays of numbers or strings, which are saved without pickle",
                )
            np.savez(folder / STATE, **states)
            return {
                **self._identity,
                "first_iteration": self._first_iteration,
                "iterations": _iterations(model),
            }

        self._folder.write(position, fill)

    def _restore(self, model, path, about):
        """Bring the model to a checkpoint, which has been verified, and return its position."""
        for what, value in self._identity.items():
            require(
                about[what] == value,
                f"{path}, whose {what} is {_shortened(about[what])}",
                _shortened(value),
                f"Give fit the {what} of the run that wrote it, or another folder.",
            )
        position = Position(about["epoch"], about["step"])
        with np.load(path / STATE, allow_pickle=False) as arrays:
            self._restored = dict(arrays)
        model.load_weights(path / WEIGHTS)
        self._first_iteration = about["first_iteration"]
        self._check_iterations(model, path, position)
        return position

    def _check_iterations(self, model, path, position):
        """Raise unless the optimizer made as many steps as epoch and step say."""
        optimizer = model.optimizer
        scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)  # it skips steps
        if self._batches is None or scales or optimizer.gradient_accumulation_steps:
            return
        expected = self._first_iteration + position.epoch * len(self._batches) + position.step
        require(
            _iterations(model) == expected,
            f"{path}, whose optimizer made {_iterations(model)} steps",
            f"{expected}, as its epoch and step say",
            "Remove that checkpoint.",
        )

    def _stateful(self):
        """The callbacks that remember something, each with a name for it."""
        counts: Counter = Counter()
        for callback in self._others or ():
            if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
                name = type(callback).__name__
                yield f"callback/{name}/{counts[name]}", callback
                counts[name] += 1


def _identity(model, batches):
    """What a run must share with the run that it continues."""
    optimizer = model.optimizer
    return {
        "model": [type(model).__name__, *_shapes(model)],
        "optimizer": [type(optimizer).__name__, *_shapes(optimizer)],
        "data": batches and batches.fingerprint,
        "order": batches and [len(batches), batches.batch_size, batches.seed],
    }


def _innermost(optimizer):
    """The optimizer, without one that scales its loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _shapes(owner):
    """Shape and type of each variable of a model or an optimizer, as JSON holds them."""
    return [[list(v.shape), keras.backend.standardize_dtype(v.dtype)] for v in owner.variables]


def _iterations(model):
    return int(ops.convert_to_numpy(model.optimizer.iterations))


def _part(arrays, prefix):
    """The arrays below this name, by the rest of their names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): v for name, v in arrays.items() if name.startswith(start)}


def _shortened(value):
    return textwrap.shorten(str(value), 200, placeholder=" ...")
