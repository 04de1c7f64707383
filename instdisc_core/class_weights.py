"""Class weights: a trained row for each instance, of which a step touches only some."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.gradients import stopped
from instdisc_core.sums import added, count
from instdisc_core.types import Attention, SearchResult, Tensor
from instdisc_core.validation import (
    check_indices,
    check_paired,
    require,
    require_count,
    require_number,
)


@keras.saving.register_keras_serializable(package="instdisc_core")
class ClassWeights(EmbeddingTable):
    """The weights of a classifier with a class for each image, trained by sparse steps.

    ``update`` is a step of SGD for all rows ``w_j``, with their momentum ``u_j`` and gradient
    ``g_j``, which is 0 for a row that is not given:

        u_j <- momentum * u_j + g_j + weight_decay * w_j
        w_j <- w_j - learning_rate * u_j

    It writes only the rows that are given, and ``n / longest_wait`` others, in turn. A step without
    gradient is linear, ``[w; u] <- A [w; u]``, and ``A`` is the same for all rows. So the products
    of the last steps' matrices are kept, and a row is brought up to date when it is read. Every
    reading has the values of the dense step, at a cost that does not grow with ``n``.

    A gradient that is not finite, and an index outside ``[0, num_instances)``, count as 0 and are
    counted in ``rejected_gradients`` and ``rejected_indices``.

    Args:
        num_instances: number of images, ``n``.
        embedding_dim: width of a row, ``d``.
        momentum: in ``[0, 1)``.
        weight_decay: at least 0; its term goes through the momentum, as PyTorch's SGD has it.
        longest_wait: steps after which a row is written at the latest. It changes speed, memory
            and the file: a step multiplies so many matrices of 2 x 2.
        seed, backend: see ``EmbeddingTable``.

    Attributes:
        rows, momentum_rows: variables ``(num_instances, embedding_dim)``, ``w`` and ``u`` as they
            were last written. They are saved like that; ``lookup`` gives the present ones.
        rejected_gradients, rejected_indices: variables ``()``, int32: rejected so far.

    Raises:
        ValueError: an argument is out of its range.

    Source:
        Cao et al., NeurIPS 2020 (PIC), section 3, which corrects a row when it is sampled. There
        the learning rate is taken to be constant meanwhile; here it may change in every step.

    Example:
    ```python
    weights = ClassWeights(num_instances=50_000, embedding_dim=128)
    weights.update(indices, gradient=features, learning_rate=0.1)
    row = weights.lookup([49_999])  # smaller by 1 - 0.1 * weight_decay
    ```
    """

    unit_rows = False

    def __init__(
        self,
        num_instances: int,
        embedding_dim: int,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        longest_wait: int = 4096,
        seed: int | None = None,
        backend: str | BankOps | None = None,
        **kwargs: Any,
    ):
        require_count("num_instances", num_instances)
        require_number("momentum", momentum, 0, 1)
        require_number("weight_decay", weight_decay, 0)
        require_count("longest_wait", longest_wait)
        named = {"name": "class_weights", **kwargs}
        super().__init__(num_instances, embedding_dim, "float32", seed, backend, **named)
        self.momentum, self.weight_decay = float(momentum), float(weight_decay)
        self.longest_wait = int(longest_wait)
        self.momentum_rows = self._storage("momentum_rows", np.zeros(self.shape), "float32")
        # The last steps are numbered in a circle. Of each: the effect of all steps after it.
        unmoved = np.tile([0.0, 0.0, 0.0, 1.0], (self.longest_wait + 1, 1))
        self.effects = self._storage("effects", unmoved, "float32")
        self.written_after = self._storage("written_after", np.zeros((self.num_rows, 1)), "int32")
        self.last_step, self.next_in_turn, self.rejected_gradients, self.rejected_indices = (
            self._storage(name, np.zeros(()), "int32")
            for name in ("last_step", "next_in_turn", "rejected_gradients", "rejected_indices")
        )
        self.build(self.shape)  # nothing left to create; it registers the state with PyTorch

    def lookup(self, indices: Tensor) -> Tensor:
        """Chosen rows, up to date; see ``EmbeddingTable.lookup``.

        Example: ``ClassWeights(8, 4).lookup([0, 7]).shape  # (2, 4)``
        """
        return self.present(ops.cast(check_indices(indices, self.num_rows), "int32"))[0]

    def present(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and their momentum after the last step, each ``(K, embedding_dim)``.

        Args:
            indices: int32 ``(K,)``, not checked.
        """
        w = self.bank_ops.rows(self.rows, indices)
        u = self.bank_ops.rows(self.momentum_rows, indices)
        a, b, c, d = self._effects_on(indices)
        return w + (a * w + b * u), c * w + d * u

    def top_k(self, features: Tensor, k: int) -> SearchResult:
        """See ``EmbeddingTable.top_k``. It holds a copy of all rows meanwhile."""
        return SearchResult(*self.bank_ops.top_k(features, self._all_rows(), k))

    def scores(self, features: Tensor, indices: Tensor) -> Tensor:
        """See ``EmbeddingTable.scores``."""
        a, b, *_ = self._effects_on(indices)
        of_momentum = self.bank_ops.scores(stopped(features), self.momentum_rows, indices)
        return super().scores(features, indices) * (1 + a[..., 0]) + of_momentum * b[..., 0]

    def combine(self, weights: Tensor, indices: Tensor) -> Tensor:
        """See ``EmbeddingTable.combine``."""
        a, b, *_ = self._effects_on(indices)
        weights = stopped(weights)
        of_momentum = self.bank_ops.combine(weights * b[..., 0], self.momentum_rows, indices)
        return super().combine(weights * (1 + a[..., 0]), indices) + of_momentum

    def attend(self, features: Tensor, temperature: float) -> Attention:
        """See ``EmbeddingTable.attend``. It holds a copy of all rows meanwhile."""
        return Attention(*self.bank_ops.attend(stopped(features), self._all_rows(), temperature))

    def update(self, indices: Tensor, gradient: Tensor, learning_rate: float | Tensor) -> None:
        """Make one step of the optimizer, for all rows.

        Args:
            indices: integers ``(K,)`` in ``[0, num_instances)``. The gradients of an index that
                is given twice are added.
            gradient: floats ``(K, embedding_dim)``, of the loss with respect to these rows. Inside
                a step that XLA compiles it must depend on the rows, so that they are written after
                they were read.
            learning_rate: number or tensor ``()``, at least 0.

        Raises:
            ValueError: indices that are not integers, not one-dimensional, or out of range where
                they are in the host's memory; a gradient of the wrong shape; a negative learning
                rate. Nothing has moved then.

        Example: ``ClassWeights(8, 128).update([3, 5], features[:2], learning_rate=0.1)``
        """
        indices = check_indices(indices, self.num_rows)
        gradient = gradient if hasattr(gradient, "dtype") else np.asarray(gradient, "float32")
        require(
            len(gradient.shape) == 2 and gradient.shape[1] == self.embedding_dim,
            f"a gradient of shape {tuple(gradient.shape)}",
            f"shape (K, {self.embedding_dim}), one row for each index",
        )
        check_paired(indices, gradient, name="the gradient")
        if isinstance(learning_rate, (int, float, np.number)):
            require_number("learning_rate", learning_rate, 0)
        self.require_writable()
        known, finite = self.contains(indices), ops.all(ops.isfinite(gradient), axis=1)
        self.rejected_indices.assign_add(count(ops.logical_not(known)))
        self.rejected_gradients.assign_add(count(ops.logical_not(finite)))
        accepted = ops.logical_and(known, finite)[:, None]
        gradient = ops.where(accepted, stopped(gradient), 0.0)

        self._make_step(rate := stopped(learning_rate))
        indices = ops.cast(ops.where(known, indices, 0), "int32")
        indices, gradient = added(*self._with_those_in_turn(indices, gradient))
        w, u = self.present(indices)
        self._write(indices, w - rate * gradient, u + gradient)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        config = super().get_config()
        del config["dtype"]  # always float32
        own = {k: getattr(self, k) for k in ("momentum", "weight_decay", "longest_wait")}
        return {"num_instances": config.pop("num_rows"), **own, **config}

    def _make_step(self, rate: Tensor) -> None:
        """One more step without gradient, for whoever was not written since.

        After some steps ``w`` has become ``(1 + a) w + b u``, and ``u`` has become ``c w + d u``.
        ``a`` is kept without the 1, next to which it would lose its digits.
        """
        a, b, c, d = _columns(ops.convert_to_tensor(self.effects))
        c = self.momentum * c + self.weight_decay * (1 + a)
        d = self.momentum * d + self.weight_decay * b
        moved = ops.concatenate([a - rate * c, b - rate * d, c, d], axis=1)
        now = (self.last_step + 1) % (self.longest_wait + 1)
        is_now = ops.arange(self.longest_wait + 1, dtype="int32")[:, None] == now
        unmoved = ops.convert_to_tensor([[0.0, 0.0, 0.0, 1.0]], dtype="float32")
        self.effects.assign(ops.where(is_now, unmoved, moved))
        self.last_step.assign(now)

    def _effects_on(self, indices: Tensor) -> tuple[Tensor, ...]:
        """What happened to each row since it was written."""
        steps = ops.cast(self.bank_ops.rows(self.written_after, indices)[..., 0], "int32")
        return _columns(ops.take(self.effects, steps, axis=0))

    def _with_those_in_turn(self, indices: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and gradients, with those of the rows that must not wait longer."""
        some = math.ceil(self.num_rows / self.longest_wait)
        turn = (self.next_in_turn + ops.arange(some, dtype="int32")) % self.num_rows
        self.next_in_turn.assign((self.next_in_turn + some) % self.num_rows)
        nothing = ops.zeros((some, self.embedding_dim))
        return ops.concatenate([indices, turn]), ops.concatenate([gradient, nothing])

    def _write(self, indices: Tensor, w: Tensor, u: Tensor) -> None:
        now = ops.cast(self.last_step, "float32") * ops.ones_like(w[:, :1])
        all_of_them = ops.ones_like(indices, dtype="bool")
        for table, rows in ((self.rows, w), (self.momentum_rows, u), (self.written_after, now)):
            self.bank_ops.update_rows(table, indices, rows, all_of_them)

    def _all_rows(self) -> Tensor:
        return self.present(ops.arange(self.num_rows, dtype="int32"))[0]

    def _checked(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        values = super()._checked(arrays)
        _, momentum_rows, effects, written_after, last_step, next_in_turn, *_ = values
        steps = np.append(written_after, last_step)
        require(
            bool(np.all(np.isfinite(momentum_rows)) and np.all(np.isfinite(effects)))
            and bool(np.all((steps >= 0) & (steps <= self.longest_wait)))
            and 0 <= int(next_in_turn) < self.num_rows,
            f"a file of {self.name} with momentum, steps or effects that are out of range",
            "them as update leaves them",
            "The file is damaged.",
        )
        return values


def _columns(effects: Tensor) -> tuple[Tensor, ...]:
    """Four tensors ``(..., 1)`` of one ``(..., 4)``."""
    return tuple(effects[..., i : i + 1] for i in range(4))
