"""What all objectives are: a loss for each image, with its gradient in closed form."""

import math

import keras
from keras import ops

from instdisc_core.gradients import attach_gradient
from instdisc_core.validation import (
    check_features,
    check_indices,
    check_paired,
    require,
    require_count,
    require_number,
    require_temperature,
)


class Objective(keras.layers.Layer):
    """A loss for each image of a batch, given the memory bank.

    Called as ``objective(features, indices, bank, negatives=None, training=True)``. It reads the
    bank and never moves it: call ``bank.update(indices, features)`` afterwards. Subclasses
    implement ``losses_and_gradient``; the proximal term and the checks are added here.

    Args:
        temperature: ``tau``, at least 1e-6.
        proximal_weight: ``lambda``, at least 0, of the term ``lambda |f_i - v_i|^2``, with ``v_i``
            the row before this step's update. It keeps an embedding from jumping between two
            visits: each image is seen once an epoch. The paper tries 0, 10, 30 and 50.

    Source:
        Wu et al., CVPR 2018; the proximal term is section 3.3, equation 10, which the official
        code lacks.
    """

    def __init__(self, temperature, proximal_weight=0.0, **kwargs):
        require_temperature(temperature)
        require_number("proximal_weight", proximal_weight, 0)
        super().__init__(**{"name": "objective", "dtype": "float32", **kwargs})
        self.temperature = float(temperature)
        self.proximal_weight = float(proximal_weight)

    def __call__(self, features, indices, bank, negatives=None, training=True):
        """The losses of a batch.

        Args:
            features: unit embeddings ``(batch, embedding_dim)``, differentiated through.
            indices: integers ``(batch,)``, which image each one is.
            bank: the MemoryBank; read, not moved.
            negatives: integers ``(batch, m)``, or ``(m,)`` shared by the batch, instead of drawn
                ones. Objectives over the whole bank take none.
            training: false evaluates: the noise is the same each time and no state moves.

        Returns:
            Float32 tensor ``(batch,)``, in nats.

        Raises:
            ValueError: features or indices of the wrong shape or type; where the values are in the
                host's memory, also indices out of range and rows of zeros. In a compiled step, and
                on an accelerator, values cannot raise: an image whose index is out of range gets
                the loss NaN and the gradient 0.
        """
        features = check_features(features, bank.embedding_dim, unit=True)
        indices = check_indices(indices, bank.num_instances)
        check_paired(indices, features)
        if negatives is not None:
            negatives = check_indices(negatives, bank.num_instances, name="negatives", ranks=(1, 2))
            require_count("num_negatives", negatives.shape[-1])
            if len(negatives.shape) == 2:
                check_paired(indices, negatives, name="negatives")
        if not self.built:
            self.build(bank.shape)
        return super().__call__(
            features, indices=indices, bank=bank, negatives=negatives, training=training
        )

    def call(self, features, indices, bank, negatives=None, training=True):
        """See ``__call__``, which checks the arguments first."""
        valid = bank.contains(indices)
        indices = ops.cast(ops.where(valid, indices, 0), "int32")
        if negatives is not None:
            drawable = ops.all(bank.contains(negatives), axis=-1)
            valid = ops.logical_and(valid, drawable)
            negatives = ops.cast(ops.clip(negatives, 0, bank.num_instances - 1), "int32")
        f = ops.stop_gradient(features)
        losses, gradient = self.losses_and_gradient(f, indices, bank, negatives, training)
        if self.proximal_weight:
            step = f - bank.lookup(indices)
            losses = losses + self.proximal_weight * ops.sum(ops.square(step), axis=1)
            gradient = gradient + 2 * self.proximal_weight * step
        losses = ops.where(valid, losses, math.nan)
        gradient = ops.where(valid[..., None], gradient, 0.0)
        return attach_gradient(losses, features, gradient)

    def losses_and_gradient(self, features, indices, bank, negatives, training):
        """The losses ``(batch,)`` and their gradient ``(batch, embedding_dim)``.

        What is received has been checked and holds no gradient.
        """
        raise NotImplementedError

    def get_config(self):
        """The arguments that rebuild this objective."""
        return {
            "name": self.name,
            "temperature": self.temperature,
            "proximal_weight": self.proximal_weight,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuild an objective from its configuration."""
        nested = {k: v for k, v in config.items() if isinstance(v, dict)}
        restored = {k: keras.saving.deserialize_keras_object(v) for k, v in nested.items()}
        return cls(**{**config, **restored})


def reject_negatives(objective, negatives):
    """Raise if an objective over the whole bank was given negatives."""
    require(
        negatives is None,
        f"negatives for {type(objective).__name__}",
        "none: it runs over all instances",
    )
