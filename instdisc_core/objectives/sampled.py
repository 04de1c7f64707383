"""Objectives that score each image against sampled negatives."""

import math
from typing import Any

import keras
from einops import rearrange, reduce
from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.negative_sampler import NegativeSampler, UniformSampler
from instdisc_core.objectives.base import known
from instdisc_core.objectives.closed_form import ClosedFormObjective
from instdisc_core.types import Tensor
from instdisc_core.validation import check_indices, check_paired, require, require_count


class SampledObjective(ClosedFormObjective):
    """What the objectives with sampled negatives share: the drawing and the scoring of rows.

    Called as ``objective(features, indices, bank, *, training=True, negatives=None)``. Subclasses
    implement ``contrast``.

    Args:
        num_negatives: ``m``, at least 1.
        temperature, proximal_weight: see ``ClosedFormObjective``.
        sampler: a NegativeSampler; None is ``UniformSampler()``.
        shared_negatives: draw one set for the whole batch. Each image's expected loss is the same,
            and the gather of ``batch x m`` rows becomes one product of two matrices.
        seed: of the default sampler.

    Example:
    ```python
    class MeanContrast(SampledObjective):
        def contrast(self, features, candidates, training):
            own, others = candidates.scores(features, self.temperature)
            losses = keras.ops.mean(others, axis=1) - own[:, 0]
            shares = keras.ops.ones_like(others) / candidates.num_negatives
            gradient = candidates.combine(-keras.ops.ones_like(own), shares)
            return losses, gradient / self.temperature

    losses = MeanContrast(4, 0.1)(features, indices, bank)
    ```
    """

    def __init__(
        self,
        num_negatives: int,
        temperature: float,
        proximal_weight: float = 0.0,
        sampler: NegativeSampler | None = None,
        shared_negatives: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        require_count("num_negatives", num_negatives)
        super().__init__(temperature, proximal_weight, **kwargs)
        self.num_negatives = int(num_negatives)
        self.sampler = UniformSampler(seed=seed) if sampler is None else sampler
        require(
            isinstance(self.sampler, NegativeSampler),
            f"sampler={sampler!r}",
            "a NegativeSampler, such as UniformSampler()",
        )
        self.shared_negatives = bool(shared_negatives)
        self._check_excluding(self.shared_negatives)

    def __call__(
        self,
        features: Tensor,
        indices: Tensor,
        bank: EmbeddingTable,
        *,
        training: bool = True,
        negatives: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The losses of a batch.

        Args:
            features, indices, bank, training: see ``Objective.__call__``.
            negatives: integers ``(batch, m)``, or ``(m,)`` shared by the batch, instead of drawn
                ones.

        Returns:
            Float32 tensor ``(batch,)``, in nats.

        Raises:
            ValueError: see ``Objective.__call__``, for negatives too. Where values cannot raise,
                an image with a negative out of range gets the loss NaN and the gradient 0.
        """
        if negatives is not None:
            negatives = check_indices(negatives, bank.num_rows, name="negatives", ranks=(1, 2))
            require_count("num_negatives", negatives.shape[-1])
            if len(negatives.shape) == 2:
                check_paired(check_indices(indices, bank.num_rows), negatives, name="negatives")
        return super().__call__(
            features, indices, bank, training=training, negatives=negatives, **kwargs
        )

    def call(
        self,
        features: Tensor,
        indices: Tensor,
        bank: EmbeddingTable,
        *,
        training: bool = True,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """See ``__call__``, which checks the arguments first."""
        if negatives is None:
            return super().call(features, indices, bank, training=training)
        valid, indices = known(indices, bank)
        drawable, negatives = known(negatives, bank)
        valid = ops.logical_and(valid, ops.all(drawable, axis=-1))
        features = ops.where(valid[:, None], features, 0.0)
        losses = self.image_losses(features, indices, bank, training, negatives=negatives)
        return ops.where(valid, losses, math.nan)

    def losses_and_gradient(
        self,
        features: Tensor,
        indices: Tensor,
        bank: EmbeddingTable,
        training: bool,
        negatives: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See ``ClosedFormObjective.losses_and_gradient``."""
        if training:
            bank.require_writable()  # the states of the sampler and the partition move
        if negatives is None:
            negatives = self.sampler.sample(
                indices, bank.num_rows, self.num_negatives, self.shared_negatives, training
            )
        self._check_excluding(shared=len(negatives.shape) == 1)
        return self.contrast(features, Candidates(indices, negatives, bank), training)

    def contrast(
        self, features: Tensor, candidates: "Candidates", training: bool
    ) -> tuple[Tensor, Tensor]:
        """The losses ``(batch,)`` and their gradient, given the rows that are compared."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        return {
            **super().get_config(),
            "num_negatives": self.num_negatives,
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "shared_negatives": self.shared_negatives,
        }

    def _check_excluding(self, shared: bool) -> None:
        require(
            not (shared and self.sampler.exclude_positive),
            "shared negatives with a sampler that has exclude_positive=True",
            "one or the other",
            "The positive of one image is a negative of another.",
        )


class Candidates:
    """The rows that a batch is scored against: each image's own, and its negatives.

    They are gathered together, once: two gathers from a bank that is then updated make XLA copy
    the whole bank twice. Shared negatives make one matrix product, of which each image uses its own
    element of the square of positives.

    Args:
        indices: valid int32 ``(batch,)``.
        negatives: valid int32 ``(batch, m)``, or ``(m,)`` shared by the batch.
        bank: owner of the rows.
    """

    def __init__(self, indices: Tensor, negatives: Tensor, bank: EmbeddingTable):
        self.bank = bank
        self.shared = len(negatives.shape) == 1
        self.num_negatives = negatives.shape[-1]
        self.batch = ops.shape(indices)[0]
        self.rows = (
            ops.concatenate([indices, negatives])
            if self.shared
            else ops.concatenate([rearrange(indices, "image -> image 1"), negatives], axis=1)
        )

    def scores(self, features: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """``s_ii`` ``(batch, 1)`` and ``s_ij_k`` ``(batch, m)``."""
        s = self.bank.scores(features, self.rows) / temperature
        if not self.shared:
            return s[:, :1], s[:, 1:]
        own = ops.eye(self.batch) * s[:, : self.batch]
        return reduce(own, "image positive -> image 1", "sum"), s[:, self.batch :]

    def combine(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """``sum_j c_j v_j`` over the positive ``(batch, 1)`` and the negatives ``(batch, m)``."""
        own = ops.eye(self.batch) * positive if self.shared else positive
        return self.bank.combine(ops.concatenate([own, negatives], axis=1), self.rows)

    def log_probabilities(self, sampler: NegativeSampler) -> tuple[Tensor, Tensor]:
        """``log P_n`` of the positive and of the negatives; each broadcasts to its scores."""
        log_p = sampler.log_probabilities(self.rows, self.bank.num_rows)
        if self.shared:
            return log_p[: self.batch, None], log_p[None, self.batch :]
        return log_p[:, :1], log_p[:, 1:]
