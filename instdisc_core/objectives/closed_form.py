"""Objectives whose gradient is written down, not differentiated."""

from typing import Any

from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.gradients import attach_gradient
from instdisc_core.objectives.base import Objective
from instdisc_core.types import Tensor
from instdisc_core.validation import require_number


class ClosedFormObjective(Objective):
    """A loss for each image with its gradient in closed form; the rows of the bank are constants.

    Subclasses implement ``losses_and_gradient``. The proximal term is added here.

    Args:
        temperature: ``tau``, at least 1e-6.
        proximal_weight: ``lambda``, at least 0, of the term ``lambda |f_i - v_i|^2``, with ``v_i``
            the row before this step's update. It keeps an embedding from jumping between two
            visits: each image is seen once an epoch. The paper tries 0, 10, 30 and 50.

    Source:
        Wu et al., CVPR 2018; the proximal term is section 3.3, equation 10, which the official
        code lacks.

    Example:
    ```python
    class Alignment(ClosedFormObjective):
        def losses_and_gradient(self, features, indices, bank, training):
            toward = bank.lookup(indices) / self.temperature
            return -keras.ops.sum(features * toward, axis=1), -toward

    losses = Alignment(0.1, proximal_weight=1.0)(features, indices, bank)
    ```
    """

    def __init__(self, temperature: float, proximal_weight: float = 0.0, **kwargs: Any):
        require_number("proximal_weight", proximal_weight, 0)
        super().__init__(temperature, **kwargs)
        self.proximal_weight = float(proximal_weight)

    def image_losses(
        self,
        features: Tensor,
        indices: Tensor,
        bank: EmbeddingTable,
        training: bool,
        **kwargs: Any,
    ) -> Tensor:
        """See ``Objective.image_losses``."""
        f = ops.stop_gradient(features)
        losses, gradient = self.losses_and_gradient(f, indices, bank, training, **kwargs)
        if self.proximal_weight:
            step = f - bank.lookup(indices)
            losses = losses + self.proximal_weight * ops.sum(ops.square(step), axis=1)
            gradient = gradient + 2 * self.proximal_weight * step
        return attach_gradient(losses, features, gradient)

    def losses_and_gradient(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> tuple[Tensor, Tensor]:
        """The losses ``(batch,)`` and their gradient ``(batch, embedding_dim)``.

        What is received has been checked and holds no gradient.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        return {**super().get_config(), "proximal_weight": self.proximal_weight}
