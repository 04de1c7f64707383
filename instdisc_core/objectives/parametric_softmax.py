"""The parametric baseline."""

import math

import keras
from einops import rearrange
from keras import ops

from instdisc_core.objectives.base import Objective, reject_negatives
from instdisc_core.validation import require


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

    def __init__(self, temperature=0.07, seed=None, **kwargs):
        require(
            not kwargs.get("proximal_weight"),
            f"proximal_weight={kwargs.get('proximal_weight')}",
            "none: ParametricSoftmax reads no row of the bank that an embedding could stay near",
        )
        super().__init__(temperature, **kwargs)
        self.seed = seed

    def build(self, bank_shape):
        """Create the weights, ``(num_instances, embedding_dim)``."""
        self.w = self.add_weight(
            name="w",
            shape=bank_shape,
            initializer=keras.initializers.RandomNormal(bank_shape[1] ** -0.5, seed=self.seed),
        )

    def call(self, features, indices, bank, negatives=None, training=True):
        """See ``Objective.__call__``."""
        reject_negatives(self, negatives)
        valid = bank.contains(indices)
        indices = ops.cast(ops.where(valid, indices, 0), "int32")
        s = ops.matmul(features, ops.transpose(self.w)) / self.temperature
        s_positive = ops.take_along_axis(s, rearrange(indices, "image -> image 1"), axis=1)[:, 0]
        return ops.where(valid, ops.logsumexp(s, axis=1) - s_positive, math.nan)

    def get_config(self):
        """The arguments that rebuild this objective."""
        return {"name": self.name, "temperature": self.temperature, "seed": self.seed}
