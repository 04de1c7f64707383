"""Noise distributions, from which the negatives of an image are drawn."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.alias_tables import alias_tables
from instdisc_core.types import Tensor
from instdisc_core.validation import check_indices, require, require_count

# Evaluation draws the same noise each time, and does not advance the random stream of training.
EVALUATION_SEED = 1805


class NegativeSampler(keras.layers.Layer):
    """A noise distribution ``P_n`` over the instances: draws from it, and its log-probabilities.

    A subclass implements ``draw`` and ``log_probabilities``.

    Args:
        seed: integer that makes a run repeatable; None draws a random one.

    Attributes:
        exclude_positive: whether an image is never among its own negatives.

    Example:
    ```python
    class EvenOnly(NegativeSampler):
        def draw(self, indices, num_instances, shape, seed):
            return 2 * keras.random.randint(shape, 0, (num_instances + 1) // 2, seed=seed)

        def log_probabilities(self, indices, num_instances):
            p = keras.ops.where(indices % 2 == 0, 2 / num_instances, 0.0)
            return keras.ops.log(p)

    objective = NCE(num_negatives=8, sampler=EvenOnly(seed=0))
    ```
    """

    exclude_positive = False

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**{"name": "sampler", "dtype": "float32", "trainable": False, **kwargs})
        self.seed_generator = keras.random.SeedGenerator(seed, name="seed_generator")
        self.seed = seed
        self.built = True

    def sample(
        self,
        indices: Tensor,
        num_instances: int,
        num_negatives: int,
        shared: bool = False,
        training: bool = True,
    ) -> Tensor:
        """Draw negatives with replacement.

        Args:
            indices: integers ``(batch,)``, the positives.
            num_instances: ``n``, the number of images to draw from.
            num_negatives: ``m``, how many to draw.
            shared: draw one set for the whole batch instead of one for each image.
            training: if false, the draw is the same each time and the random stream of training
                does not advance.

        Returns:
            Int32 tensor ``(batch, num_negatives)``, or ``(num_negatives,)`` when shared.
        """
        require_count("num_negatives", num_negatives)
        seed = self.seed_generator if training else EVALUATION_SEED
        shape = (num_negatives,) if shared else (ops.shape(indices)[0], num_negatives)
        return self.draw(indices, num_instances, shape, seed)

    def draw(self, indices: Tensor, num_instances: int, shape: tuple, seed: Any) -> Tensor:
        """Draw instances.

        Args:
            indices: integers ``(batch,)``, the positives.
            num_instances: ``n``, the number of images to draw from.
            shape: ``(batch, num_negatives)``, or ``(num_negatives,)`` if shared.
            seed: an integer or ``SeedGenerator``, for ``keras.random``.

        Returns:
            Int32 tensor of this shape.
        """
        raise NotImplementedError

    def log_probabilities(self, indices: Tensor, num_instances: int) -> Tensor:
        """``log P_n(j)`` of each of these instances, in nats: a float32 tensor of their shape."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this sampler."""
        return {"name": self.name, "seed": self.seed}


@keras.saving.register_keras_serializable(package="instdisc_core")
class UniformSampler(NegativeSampler):
    """Every image is equally likely: ``P_n(j) = 1 / n``.

    Args:
        exclude_positive: never draw the image itself; then ``P_n(j) = 1 / (n - 1)``. Otherwise 8 %
            of the images are among their own 4,096 negatives out of 50,000. It draws
            ``r ~ U{0 .. n - 2}`` and adds 1 where ``r >= i``, so that no draw is repeated.
        seed: integer that makes a run repeatable; None draws a random one.

    Source:
        Wu et al., section 3.2: uniform noise. ``exclude_positive`` is not in the paper.

    Example:
    ```python
    sampler = UniformSampler(exclude_positive=True, seed=0)
    negatives = sampler.sample(indices, num_instances=50_000, num_negatives=4096)
    ```
    """

    def __init__(self, exclude_positive: bool = False, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.exclude_positive = bool(exclude_positive)

    def draw(self, indices: Tensor, num_instances: int, shape: tuple, seed: Any) -> Tensor:
        """See ``NegativeSampler.draw``."""
        if not self.exclude_positive:
            return keras.random.randint(shape, 0, num_instances, seed=seed)
        require(
            len(shape) == 2,
            "exclude_positive=True with shared negatives",
            "a set of negatives for each image",
            "Set shared_negatives=False, or exclude_positive=False.",
        )
        require(
            num_instances > 1,
            f"exclude_positive=True with num_instances={num_instances}",
            "at least 2 instances",
        )
        drawn = keras.random.randint(shape, 0, num_instances - 1, seed=seed)
        return drawn + ops.cast(drawn >= ops.cast(indices, "int32")[:, None], "int32")

    def log_probabilities(self, indices: Tensor, num_instances: int) -> Tensor:
        """See ``NegativeSampler.log_probabilities``."""
        log_p = -math.log(num_instances - self.exclude_positive)
        return ops.broadcast_to(ops.convert_to_tensor(log_p, "float32"), ops.shape(indices))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this sampler."""
        return {**super().get_config(), "exclude_positive": self.exclude_positive}


@keras.saving.register_keras_serializable(package="instdisc_core")
class AliasSampler(NegativeSampler):
    """Any noise distribution, drawn in constant time by Walker's alias method.

    Every instance owns a slot of weight ``1 / n``. The part of a slot below a threshold stands for
    its owner, and the part above it for one other instance, its alias. A draw is a slot and a
    place in it. The positive cannot be excluded: for that, a draw would have to be repeated.

    Args:
        probabilities: ``(n,)``, positive, proportional to ``P_n``; they are normalized. The
            largest may be up to about 1e307 times the smallest.
        seed: integer that makes a run repeatable; None draws a random one.

    Raises:
        ValueError: probabilities that are not one-dimensional, finite and positive, also after
            they are normalized.

    Source:
        Walker 1977. Wu et al. mention non-uniform noise, and their code has alias tables for it.
        The tables are built here by prefix sums, in O(n) without a Python loop.

    Example:
    ```python
    counts = np.bincount(labels)  # of the images of each class
    sampler = AliasSampler(counts[labels] ** -0.5, seed=0)
    ```
    """

    def __init__(self, probabilities: ArrayLike, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        probabilities = np.asarray(probabilities, "float64")
        require(
            probabilities.ndim == 1
            and probabilities.size > 0
            and np.all(np.isfinite(probabilities))
            and np.all(probabilities > 0),
            f"probabilities of shape {probabilities.shape}, not all of them finite and positive"
            if probabilities.ndim == 1
            else f"probabilities of shape {probabilities.shape}",
            "a positive weight for each instance, of shape (num_instances,)",
            "An image that must never be drawn can have a very small weight.",
        )
        shares = probabilities / probabilities.max()  # the sum might be infinite
        shares = shares / shares.sum()
        lost = int(np.sum(shares == 0))
        require(
            lost == 0,
            f"probabilities from {probabilities.min():.3g} to {probabilities.max():.3g}, of which "
            f"{lost} would be 0 in float64",
            "weights that stay positive when they are divided by their sum",
            "Raise the smallest weights.",
        )
        self.probabilities = shares
        threshold, alias = alias_tables(self.probabilities)
        self._threshold = self._table("threshold", threshold, "float32")
        self._alias = self._table("alias", alias, "int32")
        self._log = self._table("log_probabilities", np.log(self.probabilities), "float32")

    def draw(self, indices: Tensor, num_instances: int, shape: tuple, seed: Any) -> Tensor:
        """See ``NegativeSampler.draw``."""
        self._check(num_instances)
        slot = keras.random.randint(shape, 0, num_instances, seed=seed)
        side = keras.random.uniform(shape, seed=seed if seed is self.seed_generator else seed + 1)
        beyond = side >= ops.take(self._threshold, slot)
        return ops.where(beyond, ops.take(self._alias, slot), slot)

    def log_probabilities(self, indices: Tensor, num_instances: int) -> Tensor:
        """See ``NegativeSampler.log_probabilities``."""
        self._check(num_instances)
        return ops.take(self._log, check_indices(indices, num_instances, ranks=(1, 2)))

    def load_own_variables(self, store: Any) -> None:
        """Load nothing: the tables follow from the probabilities of this sampler."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this sampler."""
        return {**super().get_config(), "probabilities": self.probabilities.tolist()}

    def _check(self, num_instances: int) -> None:
        require(
            num_instances == len(self.probabilities),
            f"{len(self.probabilities)} probabilities for a bank of {num_instances} instances",
            "one probability for each instance",
        )

    def _table(self, name: str, values: np.ndarray, dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=values.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: ops.convert_to_tensor(values, dtype),
            trainable=False,
            autocast=False,
        )
