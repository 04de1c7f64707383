"""The exact softmax over the memory bank."""

from typing import Any

import keras
from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.objectives.closed_form import ClosedFormObjective
from instdisc_core.types import Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class NonParametricSoftmax(ClosedFormObjective):
    """The exact softmax over all images.

        L_i      = log sum_j exp s_ij - s_ii
        dL_i/df  = (sum_j p_ij v_j - v_i) / temperature,    p_i = softmax(s_i)

    Both come out of one streaming pass of attention; the ``batch x n`` scores are never held. At
    50,000 images that costs about as much as NCE with 4,096 negatives of each image's own.

    Args:
        temperature: at least 1e-6; the paper uses 0.07 on ImageNet, 0.1 on CIFAR-10.
        proximal_weight: see ``ClosedFormObjective``.

    Source:
        Wu et al., section 3.1, equation 2.

    Example:
    ```python
    objective = NonParametricSoftmax(temperature=0.1)
    losses = objective(features, indices, bank)
    ```
    """

    def __init__(self, temperature: float = 0.07, proximal_weight: float = 0.0, **kwargs: Any):
        super().__init__(temperature, proximal_weight, **kwargs)

    def losses_and_gradient(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> tuple[Tensor, Tensor]:
        """See ``ClosedFormObjective.losses_and_gradient``."""
        v = bank.lookup(indices)
        log_z, expected_row = bank.attend(features, self.temperature)
        s = ops.sum(features * v, axis=1) / self.temperature
        return log_z - s, (expected_row - v) / self.temperature
