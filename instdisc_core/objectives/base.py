"""What all objectives are: a loss for each image, given the rows of a bank."""

import math
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.types import Tensor
from instdisc_core.validation import (
    check_features,
    check_indices,
    check_paired,
    require,
    require_number,
    require_temperature,
)


class Objective(keras.layers.Layer):
    """A loss for each image of a batch, given the memory bank.

    Called as ``objective(features, indices, bank, *, training=True)``. It reads the bank and never
    moves it: call ``bank.update(indices, features)`` afterwards.

    There are three kinds of objectives, by what a subclass implements:

    - ``Objective``: ``image_losses``, in operations that the framework differentiates;
    - ``ClosedFormObjective``: ``losses_and_gradient``, the gradient in closed form, so that
      nothing that reads the bank is differentiated;
    - ``SampledObjective``: ``contrast``, the same for a positive and sampled negatives.

    Objectives can be added and scaled: ``NonParametricSoftmax(1.0) + 0.5 * other``, or
    ``sum([first, second])``.

    Args:
        temperature: ``tau``, at least 1e-6.

    Example:
    ```python
    class Alignment(Objective):
        def image_losses(self, features, indices, bank, training):
            own = bank.lookup(indices)
            return -keras.ops.sum(features * own, axis=1) / self.temperature

    losses = Alignment(0.1)(features, indices, bank)
    ```
    """

    def __init__(self, temperature: float, **kwargs: Any):
        require_temperature(temperature)
        super().__init__(**{"name": "objective", "dtype": "float32", **kwargs})
        self.temperature = float(temperature)

    def __call__(
        self,
        features: Tensor,
        indices: Tensor,
        bank: EmbeddingTable,
        *,
        training: bool = True,
        counted: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The losses of a batch.

        Args:
            features: unit embeddings ``(batch, embedding_dim)``, differentiated through.
            indices: integers ``(batch,)``, which image each one is.
            bank: the MemoryBank; read, not moved.
            training: false evaluates: the noise is the same each time and no state moves.
            counted: boolean ``(batch,)``, which images count; None is all. Another gets the loss
                NaN and the gradient 0, and objectives that compare the images of a batch leave it
                out.

        Returns:
            Float32 tensor ``(batch,)``, in nats.

        Raises:
            ValueError: features or indices of the wrong shape or type; where the values are in the
                host's memory, also indices out of range and rows of zeros. In a compiled step, and
                on an accelerator, values cannot raise: an image whose index is out of range does
                not count.
        """
        features = check_features(features, bank.embedding_dim, unit=True)
        indices = check_indices(indices, bank.num_rows)
        check_paired(indices, features)
        if counted is not None:
            indices = ops.where(counted, indices, -1)
        if not self.built:
            self.build(bank.shape)
        ranks = bank.communicator.size
        require(
            ranks == 1 or not self.trainable_variables,
            f"{type(self).__name__} on {ranks} ranks",
            "an objective without weights of its own",
            "Each rank would count its gradient for all images. Train it on one device.",
        )
        return super().__call__(features, indices=indices, bank=bank, training=training, **kwargs)

    def call(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, *, training: bool = True
    ) -> Tensor:
        """See ``__call__``, which checks the arguments first."""
        valid, indices = known(indices, bank)
        features = ops.where(valid[:, None], features, 0.0)  # adds nothing to a sum over the batch
        return ops.where(valid, self.image_losses(features, indices, bank, training), math.nan)

    def image_losses(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> Tensor:
        """The losses ``(batch,)``, differentiable in ``features``. All indices are valid.

        The features of an image that does not count are zeros.
        """
        raise NotImplementedError

    def check_batch(self, num_embeddings: int, embedding_dim: int) -> None:
        """Warn of a batch that is too small; here none is. ``fit`` asks before the first step."""

    def report(self) -> dict[str, Tensor]:
        """Numbers that training logs next to the loss: scalars by name. None by default.

        The names must be the same before training and in every step.
        """
        return {}

    def __add__(self, other: "Objective") -> "ObjectiveSum":
        return ObjectiveSum([self, other])

    def __radd__(self, other: Any) -> "Objective":
        """For ``sum([first, second])``, which starts from 0."""
        return self if isinstance(other, int) and other == 0 else ObjectiveSum([other, self])

    def __mul__(self, weight: float) -> "ObjectiveSum":
        return ObjectiveSum([self], [weight])

    __rmul__ = __mul__

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        return {"name": self.name, "temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild an objective from its configuration."""
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable(package="instdisc_core")
class ObjectiveSum(Objective):
    """A weighted sum of objectives, what ``first + second`` and ``0.5 * second`` return.

        L_i = sum_t weight_t L_i^(t)

    Its ``temperature`` is that of the first. What the objectives report, it reports.

    Args:
        objectives: at least one; sums among them are taken apart.
        weights: a finite number for each; None is 1 for each.

    Raises:
        ValueError: no objectives, something else among them, or weights that do not fit them.

    Example: ``losses = (NonParametricSoftmax(1.0) + 0.5 * InfoNCE(16))(features, indices, bank)``
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        weights: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        are_objectives = isinstance(objectives, (list, tuple)) and len(objectives) > 0
        require(
            are_objectives and all(isinstance(o, Objective) for o in objectives),
            f"objectives={objectives!r}",
            "a list of at least one Objective, and nothing else",
        )
        weights = [1.0] * len(objectives) if weights is None else weights
        require(
            isinstance(weights, (list, tuple)) and len(weights) == len(objectives),
            f"weights={weights!r} of {len(objectives)} objectives",
            "a list with a number for each",
        )
        terms: list[tuple[float, Objective]] = []
        for weight, objective in zip(weights, objectives, strict=True):
            require_number("weight", weight, -math.inf)
            inner = objective.terms if isinstance(objective, ObjectiveSum) else [(1.0, objective)]
            terms += [(float(weight) * w, o) for w, o in inner]
        super().__init__(terms[0][1].temperature, **kwargs)
        self.objectives = [objective for _, objective in terms]
        self.weights_of_objectives = [weight for weight, _ in terms]

    @property
    def terms(self) -> list[tuple[float, Objective]]:
        """Weight and objective of each term."""
        return list(zip(self.weights_of_objectives, self.objectives, strict=True))

    def build(self, bank_shape: tuple[int, int]) -> None:
        """Build each objective."""
        for objective in self.objectives:
            if not objective.built:
                objective.build(bank_shape)

    def image_losses(
        self, features: Tensor, indices: Tensor, bank: EmbeddingTable, training: bool
    ) -> Tensor:
        """See ``Objective.image_losses``."""
        return sum(w * o.image_losses(features, indices, bank, training) for w, o in self.terms)

    def check_batch(self, num_embeddings: int, embedding_dim: int) -> None:
        """See ``Objective.check_batch``."""
        for objective in self.objectives:
            objective.check_batch(num_embeddings, embedding_dim)

    def report(self) -> dict[str, Tensor]:
        """What the objectives report; of two with the same name, that of the first."""
        reports: dict[str, Tensor] = {}
        for objective in self.objectives:
            reports = objective.report() | reports
        return reports

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this objective."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "objectives": [serialize(objective) for objective in self.objectives],
            "weights": self.weights_of_objectives,
        }


def known(integers: Tensor, bank: EmbeddingTable) -> tuple[Tensor, Tensor]:
    """Which integers name a row, and the integers as int32 with 0 in the place of the others."""
    valid = bank.contains(integers)
    return valid, ops.cast(ops.where(valid, integers, 0), "int32")
