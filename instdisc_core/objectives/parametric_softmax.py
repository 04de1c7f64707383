"""The parametric baseline."""

from typing import Any

import keras
from einops import rearrange
from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.objectives.base import Objective
from instdisc_core.types import Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class ParametricSoftmax(Objective):
    """The baseline: an ordinary classifier with one trained weight vector for each image.

        L_i = log sum_j exp(w_j . f_i / temperature) - w_i . f_i / temperature

    It reads the bank's shape alone; its weights ``w`` are trained by the optimizer, and are built
    at the first call or by ``build(bank.shape)``. Logits are ``batch x n``.

    Args:
        temperature: at least 1e-6.
        seed: integer that makes the starting weights repeatable.

    Source:
        Wu et al., section 3.1, equation 1 (with a temperature, 1 in the paper); Cao et al., PIC.

    Example: ``losses = ParametricSoftmax(temperature=0.1)(features, indices, bank)``
    """

    def __init__(self, temperature: float = 0.07, seed: int | None = None, **kwargs: Any):
        super().__init__(temperature, **kwargs)
        self.seed = seed

    def build(self, bank_shape: tuple[int, int]) -> None:
        """Create the weights, ``(num_instances, embedding_dim)``."""
        self.w = self.add_weight(
            name="w",
            shape=bank_shape,
            initializer=keras.initializers.RandomNormal(bank_shape[1] ** -0.5, seed=self.seed),
        )

    def image_losses(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> Tensor:
        """See ``Objective.image_losses``."""
        s = ops.matmul(features, ops.transpose(self.w)) / self.temperature
        own = ops.take_along_axis(s, rearrange(indices, "image -> image 1"), axis=1)
        return ops.logsumexp(s, axis=1) - own[:, 0]

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        return {**super().get_config(), "seed": self.seed}
