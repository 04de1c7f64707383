"""A step of training that keeps the losses and their gradient."""

from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.memory_bank import MemoryBank
from instdisc_core.objectives import Objective
from instdisc_core.testing.strategies import Problem
from instdisc_core.types import Tensor

NEGATIVES = 9


class TrainingStep(keras.Model):
    """Losses and gradient from a step of training, so that the framework compiles both.

    The features are the given ones plus an offset of zeros. After a step of gradient descent with
    the learning rate 1, the offset is the negative gradient of the sum of the losses.
    """

    def __init__(
        self,
        objective: Objective,
        problem: Problem,
        shared: bool | None,
        run_eagerly: bool,
        checked: bool,
    ):
        super().__init__(name="step")
        self.objective, self.shared, self.checked = objective, shared, checked
        self.bank = MemoryBank(*problem.bank.shape)
        batch, width = problem.features.shape
        self.offset = self.add_weight(name="offset", shape=(batch, width), initializer="zeros")
        self.values = self.add_weight(name="values", shape=(batch,), trainable=False)
        self.objective.build(self.bank.shape)
        self.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=run_eagerly)

    def call(self, batch: dict[str, Tensor]) -> Tensor:
        """The features."""
        return batch["features"] + self.offset

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The sum of the losses; each is stored in ``values``."""
        given = {name: value for name, value in x.items() if name != "features"}
        run = self.objective if self.checked else self.objective.call
        losses = run(y_pred, y, self.bank, training=True, **given)
        self.values.assign(ops.stop_gradient(losses))
        return ops.sum(ops.where(ops.isnan(losses), 0.0, losses))

    def run(self, problem: Problem, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses ``(batch,)`` and gradient ``(batch, embedding_dim)`` in float64."""
        self.bank.rows.assign(problem.bank)
        self.offset.assign(np.zeros(self.offset.shape))
        batch = {"features": problem.features}
        if self.shared is not None:
            batch["negatives"] = negatives_of(problem, self.shared)
        self.train_on_batch(batch, indices)
        results = self.values, self.offset
        losses, offset = (ops.convert_to_numpy(v).astype("float64") for v in results)
        return losses, -offset


def negatives_of(problem: Problem, shared: bool) -> np.ndarray:
    """The negatives of a problem, the same in each call."""
    rng = np.random.default_rng(int(problem.indices.sum()))
    shape = (NEGATIVES,) if shared else (len(problem.indices), NEGATIVES)
    return rng.integers(0, len(problem.bank), shape).astype("int32")
