"""Measures of embedding and bank in every epoch, without labels."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core import health
from instdisc_core.data import ImageSource
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_count


class BankHealth(keras.callbacks.Callback):
    """Logs measures of the embedding and the bank that need no labels, and warns of a collapse.

    Put it before the callbacks that write logs or checkpoints. It leaves the model's random states
    as they were, so a run on an ImageSource is the same with it and without. (Under PyTorch Keras's
    ``predict`` draws from the global generator, which ``fit`` also uses to shuffle arrays.)

    It adds to the logs of an epoch

    - ``health_`` and the name of each number that ``Objective.report`` gives: of NCE
      ``health_log_z``, the log Z in use, in nats;
    - ``health_log_z_exact``: ``log mean_i Z_i`` over the whole bank, in nats;
    - ``health_bank_age``: epochs since a row last moved in this ``fit``, the mean over the sample;
      0 where all images are seen in every epoch;
    - ``health_uniformity``, ``health_alignment`` (of two augmentations of an image; only with an
      augmenter) and ``health_effective_rank``;
    - ``health_positive_rank``: the median rank of an image's own row among all rows; 1 is the best;
    - ``health_neighbor_agreement``: with the neighbors of the previous measurement in this ``fit``;
      not in the first;
    - ``health_collapsed``: 1 if ``health.detect_collapse`` finds a collapse, else 0; the first
      collapse is also a warning.

    Args:
        images: training images, an array in the form that ``predict`` takes, or an
            ``instdisc_core.data.ImageSource``, of which ``sample`` images are taken.
        indices: their instance indices; None is 0, 1, 2, ...
        sample: number of images that are measured, spread evenly over those given.
        k: number of neighbors whose agreement is logged.
        every: measure in every so many epochs, at least 1.
        batch_size: of ``predict``.

    Raises:
        ValueError: fewer than 2 images, indices of another number, or an argument below 1; and
            from ``fit``, if the model has no memory bank.

    Source:
        See ``instdisc_core.health`` for each measure.

    Example:
    ```python
    model.fit(images, indices, callbacks=[BankHealth(images), LogFile("log.csv")])
    ```
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        indices: ArrayLike | None = None,
        sample: int = 512,
        k: int = 10,
        every: int = 1,
        batch_size: int = 256,
    ) -> None:
        super().__init__()
        for name, value in (("sample", sample), ("k", k), ("every", every)):
            require_count(name, value)
        count = len(images)
        require(count > 1, f"{count} images", "at least 2")
        indices = np.arange(count) if indices is None else np.asarray(indices)
        require(len(indices) == count, f"{len(indices)} indices of {count} images", "one for each")
        chosen = np.unique(np.linspace(0, count - 1, min(sample, count)).astype("int64"))
        self.images = images.images(chosen) if isinstance(images, ImageSource) else images[chosen]
        self.indices = indices[chosen].astype("int32")
        self.k, self.every, self.batch_size = k, every, batch_size
        self._warned = False
        self.on_train_begin()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier ``fit``."""
        self._rows: Any = None  # of the sample, as they were when the last epoch ended
        self._moved: Any = None  # the epoch in which each of them last moved
        self._neighbors: Any = None  # of the last measurement

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before the first epoch, take the rows as if they had moved in the epoch before."""
        if self._rows is None:
            require(
                self.model.memory_bank is not None,
                "BankHealth in the fit of a model that has no memory bank",
                "an InstanceDiscrimination model",
                "instdisc_core.health has measures of embeddings alone.",
            )
            self._rows = self._sampled_rows()
            self._moved = np.full(len(self.indices), epoch - 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, in every ``every``-th epoch."""
        rows = self._sampled_rows()
        self._moved[np.any(rows != self._rows, axis=1)] = epoch
        self._rows = rows
        if (epoch + 1) % self.every or logs is None:
            return
        measured = self._measure(epoch)
        logs.update({f"health_{name}": value for name, value in measured.items()})

    def get_state(self) -> dict[str, np.ndarray]:
        """What it remembers from epoch to epoch, for a checkpoint: arrays by name."""
        state = {"rows": self._rows, "moved": self._moved, "neighbors": self._neighbors}
        kept = {name: value.copy() for name, value in state.items() if value is not None}
        settings = {"indices": self.indices, "k": self.k, "warned": self._warned}
        return {name: np.array(value) for name, value in settings.items()} | kept

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what ``get_state`` returned, so that a resumed run logs what a whole one logs.

        Call it after ``on_train_begin``, which forgets the state.

        Raises:
            ValueError: the state of a callback with another sample of images, or another ``k``.
        """
        require(
            np.array_equal(state["indices"], self.indices) and state["k"] == self.k,
            f"the state of a BankHealth with {len(state['indices'])} images and k={state['k']}",
            f"the same {len(self.indices)} images and k={self.k} as here",
            "Resume with the arguments with which the run was started.",
        )
        self._rows, self._moved, self._neighbors = (
            None if name not in state else np.array(state[name])
            for name in ("rows", "moved", "neighbors")
        )
        self._warned = bool(state["warned"])

    def _measure(self, epoch: int) -> dict[str, float]:
        model, bank = self.model, self.model.memory_bank
        f = model.predict(self.images, batch_size=self.batch_size, verbose=0)
        found = health.detect_collapse(f)
        if found and not self._warned:
            self._warned = True
            warnings.warn(
                f"Collapse after epoch {epoch + 1}: {found}. Lower the learning rate, put batch "
                "normalization into the encoder, or look at Z in the logs.",
                stacklevel=2,
            )
        if not np.all(np.isfinite(f)):
            return {"collapsed": 1.0}
        measured = {"collapsed": float(found is not None)}
        for name, value in model.objective.report().items():
            measured[name] = float(ops.convert_to_numpy(value))
        attended = bank.attend(ops.convert_to_tensor(f), model.objective.temperature)
        log_z = ops.convert_to_numpy(attended[0])
        measured["log_z_exact"] = float(np.logaddexp.reduce(log_z) - np.log(len(log_z)))
        measured["bank_age"] = float(np.mean(epoch - self._moved))
        measured["uniformity"] = health.uniformity(f)
        if model.augmenter is not None:
            measured["alignment"] = health.alignment(*self._two_views())
        measured["effective_rank"] = health.effective_rank(f)
        measured["positive_rank"] = float(np.median(health.positive_ranks(f, self.indices, bank)))
        neighbors = ops.convert_to_numpy(bank.search(f, min(self.k, bank.num_instances))[1])
        if self._neighbors is not None:
            agreement = health.neighbor_agreement(self._neighbors, neighbors)
            measured["neighbor_agreement"] = agreement
        self._neighbors = neighbors
        return measured

    def _sampled_rows(self) -> np.ndarray:
        return ops.convert_to_numpy(self.model.memory_bank.lookup(self.indices))

    def _two_views(self) -> list[np.ndarray]:
        """Embeddings of two augmentations of the sample."""
        augmenter, size = self.model.augmenter, self.batch_size
        starts = range(0, len(self.images), size)
        views = []
        with self.model.preserved_random_states():
            for _ in range(2):
                parts = [augmenter(self.images[s : s + size], training=True) for s in starts]
                view = np.concatenate([ops.convert_to_numpy(part) for part in parts])
                views.append(self.model.predict(view, batch_size=size, verbose=0))
        return views
