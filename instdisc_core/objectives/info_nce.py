"""A softmax over the positive and sampled negatives."""

from typing import Any

import keras
from keras import ops

from instdisc_core.negative_sampler import NegativeSampler
from instdisc_core.objectives.sampled import Candidates, SampledObjective
from instdisc_core.types import Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class InfoNCE(SampledObjective):
    """A softmax over the positive and ``m`` sampled negatives.

        L_i      = log(exp s_ii + sum_k exp s_ij_k) - s_ii
        dL_i/df  = (p_i v_i + sum_k p_k v_j_k - v_i) / temperature,  p = softmax(s_ii, s_ij_1, ...)

    Args:
        num_negatives: ``m``, at least 1.
        temperature: at least 1e-6.
        proximal_weight: see ``ClosedFormObjective``.
        sampler: the noise; None is ``UniformSampler()``. The scores are not corrected for it.
        shared_negatives: one set for the whole batch, by default: like a queue of keys. A set for
            each image means ``batch x m`` gathered rows.
        seed: of the default sampler.

    Source:
        van den Oord et al., 2018, equation 4, over the memory bank as in CMC and MoCo.

    Example: ``losses = InfoNCE(num_negatives=16384, temperature=0.07)(features, indices, bank)``
    """

    def __init__(
        self,
        num_negatives: int = 65536,
        temperature: float = 0.07,
        proximal_weight: float = 0.0,
        sampler: NegativeSampler | None = None,
        shared_negatives: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(
            num_negatives, temperature, proximal_weight, sampler, shared_negatives, seed, **kwargs
        )

    def contrast(
        self, features: Tensor, candidates: Candidates, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``SampledObjective.contrast``."""
        s_positive, s_negatives = candidates.scores(features, self.temperature)
        log_z = ops.logaddexp(s_positive[:, 0], ops.logsumexp(s_negatives, axis=1))
        p_positive = ops.exp(s_positive - log_z[:, None])
        p_negatives = ops.exp(s_negatives - log_z[:, None])
        gradient = candidates.combine(p_positive - 1, p_negatives)
        return log_z - s_positive[:, 0], gradient / self.temperature
