"""Noise-contrastive estimation."""

import math
from typing import Any

import keras
from keras import ops

from instdisc_core.negative_sampler import NegativeSampler
from instdisc_core.objectives.sampled import Candidates, SampledObjective
from instdisc_core.partition import MovingAveragePartition, PartitionName, PartitionPolicy
from instdisc_core.partition import get as get_partition
from instdisc_core.types import Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class NCE(SampledObjective):
    """Noise-contrastive estimation: tell image ``i`` from ``m`` draws of the noise.

        L_i      = - log sigma(l_ii) - sum_k log sigma(-l_ij_k),    j_k ~ P_n
        l_ij     = s_ij - log Z - log(m P_n(j))
        dL_i/df  = sum_j c_j v_j / temperature,    c_i = sigma(l_ii) - 1,  c_j_k = sigma(l_ij_k)

    ``sigma(l_ij)`` is the paper's posterior ``h(j, f_i) = P(j|f_i) / (P(j|f_i) + m P_n(j))``. It is
    computed from the logits, so nothing overflows and no epsilon is needed.

    Args:
        num_negatives: ``m``, at least 1.
        temperature: at least 1e-6.
        proximal_weight: see ``ClosedFormObjective``.
        sampler: the noise; None is ``UniformSampler()``, the paper's.
        partition: the policy for Z, or its name, see ``partition.get``; None is
            ``MovingAveragePartition(decay=0.9)``. Its state is readable as
            ``objective.partition.log_z``.
        shared_negatives: one set of negatives for the whole batch, many times faster.
        seed: of the default sampler.

    Source:
        Wu et al., section 3.2, equations 4 to 8. The paper estimates Z from the first batches and
        then fixes it, ``partition=FirstBatches()``. On small data sets Z grows a thousandfold
        after that, and the embedding collapses; so here it follows by default.

    Example:
    ```python
    objective = NCE(num_negatives=4096, temperature=0.07, proximal_weight=30.0)
    losses = objective(features, indices, bank)
    ```
    """

    def __init__(
        self,
        num_negatives: int = 4096,
        temperature: float = 0.07,
        proximal_weight: float = 0.0,
        sampler: NegativeSampler | None = None,
        partition: PartitionPolicy | PartitionName | None = None,
        shared_negatives: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            num_negatives, temperature, proximal_weight, sampler, shared_negatives, seed, **kwargs
        )
        default = MovingAveragePartition(decay=0.9)
        self.partition = default if partition is None else get_partition(partition)

    def contrast(
        self, features: Tensor, candidates: Candidates, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``SampledObjective.contrast``."""
        s_positive, s_negatives = candidates.scores(features, self.temperature)
        log_p_positive, log_p_negatives = candidates.log_probabilities(self.sampler)
        counts = ops.any(features != 0, axis=1)

        def mean(log_z: Tensor) -> Tensor:
            return _log_mean_exp(ops.where(counts, log_z, math.nan))

        def exact_log_z() -> Tensor:
            return mean(candidates.bank.attend(features, self.temperature).log_z)

        log_m = math.log(candidates.num_negatives)
        sampled_log_z = ops.logsumexp(s_negatives - log_p_negatives, axis=1) - log_m
        if self.sampler.exclude_positive:
            sampled_log_z = ops.logaddexp(sampled_log_z, s_positive[:, 0])
        log_z = self.partition.update(mean(sampled_log_z), exact_log_z, training)

        l_positive = s_positive - log_z - (log_m + log_p_positive)
        l_negatives = s_negatives - log_z - (log_m + log_p_negatives)
        losses = -ops.log_sigmoid(l_positive)[:, 0] - ops.sum(ops.log_sigmoid(-l_negatives), axis=1)
        gradient = candidates.combine(ops.sigmoid(l_positive) - 1, ops.sigmoid(l_negatives))
        return losses, gradient / self.temperature

    def report(self) -> dict[str, Tensor]:
        """``log_z``, the log Z in use."""
        return {"log_z": self.partition.log_z}

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        partition = keras.saving.serialize_keras_object(self.partition)
        return {**super().get_config(), "partition": partition}


def _log_mean_exp(x: Tensor) -> Tensor:
    """``log mean exp x`` over the images whose ``x`` is finite; it never overflows."""
    finite = ops.isfinite(x)
    count = ops.sum(ops.cast(finite, "float32"))
    return ops.logsumexp(ops.where(finite, x, -math.inf)) - ops.log(count)
