"""Objectives that score each image against sampled negatives."""

import keras
from einops import rearrange, reduce
from keras import ops

from instdisc_core.negative_sampler import NegativeSampler, UniformSampler
from instdisc_core.objectives.base import Objective
from instdisc_core.validation import require, require_count


class SampledObjective(Objective):
    """What the objectives with sampled negatives share: the drawing and the scoring of rows.

    Args:
        num_negatives: ``m``, at least 1.
        temperature, proximal_weight: see ``Objective``.
        sampler: a NegativeSampler; None is ``UniformSampler()``.
        shared_negatives: draw one set for the whole batch. Each image's expected loss is the same,
            and the gather of ``batch x m`` rows becomes one product of two matrices.
        seed: of the default sampler.
    """

    def __init__(
        self,
        num_negatives,
        temperature,
        proximal_weight=0.0,
        sampler=None,
        shared_negatives=False,
        seed=None,
        **kwargs,
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
        self._reject_excluding(self.shared_negatives)

    def candidates(self, indices, bank, negatives, training):
        """The positive and the negatives of each image, ready to be scored."""
        if training:
            bank.require_writable()  # the sampler's and the partition's states move
        if negatives is None:
            negatives = self.sampler.sample(
                indices, bank.num_instances, self.num_negatives, self.shared_negatives, training
            )
        self._reject_excluding(shared=len(negatives.shape) == 1)
        return Candidates(indices, negatives, bank)

    def get_config(self):
        """The arguments that rebuild this objective."""
        return {
            **super().get_config(),
            "num_negatives": self.num_negatives,
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "shared_negatives": self.shared_negatives,
        }

    def _reject_excluding(self, shared):
        require(
            not (shared and self.sampler.exclude_positive),
            "shared negatives with a sampler that has exclude_positive=True",
            "one or the other",
            "What is the positive of one image is a negative of the next.",
        )


class Candidates:
    """The rows that a batch is scored against: each image's own, and its negatives.

    They are gathered together, once: two gathers from a bank that is then updated make XLA copy
    the whole bank twice. Shared negatives make one matrix product, of which each image uses its own
    element of the square of positives.
    """

    def __init__(self, indices, negatives, bank):
        self.bank = bank
        self.shared = len(negatives.shape) == 1
        self.num_negatives = negatives.shape[-1]
        self.batch = ops.shape(indices)[0]
        self.rows = (
            ops.concatenate([indices, negatives])
            if self.shared
            else ops.concatenate([rearrange(indices, "image -> image 1"), negatives], axis=1)
        )

    def scores(self, features, temperature):
        """``s_ii`` ``(batch, 1)`` and ``s_ij_k`` ``(batch, m)``."""
        s = self.bank.scores(features, self.rows) / temperature
        if not self.shared:
            return s[:, :1], s[:, 1:]
        own = ops.eye(self.batch) * s[:, : self.batch]
        return reduce(own, "image positive -> image 1", "sum"), s[:, self.batch :]

    def combine(self, positive, negatives):
        """``sum_j c_j v_j`` over the positive ``(batch, 1)`` and the negatives ``(batch, m)``."""
        own = ops.eye(self.batch) * positive if self.shared else positive
        return self.bank.combine(ops.concatenate([own, negatives], axis=1), self.rows)

    def log_probabilities(self, sampler):
        """``log P_n`` of the positive and of the negatives; each broadcasts to its scores."""
        log_p = sampler.log_probabilities(self.rows, self.bank.num_instances)
        if isinstance(log_p, float):
            return log_p, log_p
        if self.shared:
            return log_p[: self.batch, None], log_p[None, self.batch :]
        return log_p[:, :1], log_p[:, 1:]
