"""Policies for the partition function Z of noise-contrastive estimation."""

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from instdisc_core.types import Tensor
from instdisc_core.validation import require_choice, require_count, require_number

PartitionName = Literal["first_batches", "moving_average", "exact"]


class PartitionPolicy(keras.layers.Layer):
    """How one constant Z, the same for all images, follows the estimates of the batches.

    Each training batch gives an estimate. The policy mixes it in with a weight ``w`` that depends
    on the number of batches before it:

        Z <- (1 - w) Z + w * estimate

    It is computed on logarithms, since Z overflows float16 and, at low temperature, float32. An
    estimate that is not finite is left out. A subclass defines ``weight``, or ``estimate`` too.

    Attributes:
        log_z: variable ``()``, float32, log Z in nats; minus infinity until the first batch.
        num_batches_seen: variable ``()``, int32, batches whose estimate was finite.

    Example:
    ```python
    class EveryTenth(PartitionPolicy):
        def weight(self, num_batches_seen):
            return keras.ops.where(num_batches_seen % 10 == 0, 1.0, 0.0)
    ```
    """

    def __init__(self, log_z: float = -math.inf, **kwargs: Any):
        super().__init__(**{"name": "partition", "dtype": "float32", "trainable": False, **kwargs})
        self.log_z = self._state("log_z", log_z, "float32")
        self.num_batches_seen = self._state("num_batches_seen", 0, "int32")
        self.built = True

    def weight(self, num_batches_seen: Tensor) -> Tensor:
        """The weight ``w`` in ``[0, 1]`` of the next estimate: a float, or a float32 scalar."""
        raise NotImplementedError

    def estimate(self, sampled: Tensor, exact: Callable[[], Tensor]) -> Tensor:
        """This batch's log Z, ``()``: by default the one sampled from the negatives.

        Args:
            sampled: float32 tensor ``()``, ``log mean_ik exp(s_ik) / P_n(j_ik)``.
            exact: function without arguments that reads the whole bank and returns
                ``log mean_i Z_i``.
        """
        return sampled

    def update(self, sampled: Tensor, exact: Callable[[], Tensor], training: bool = True) -> Tensor:
        """The log Z to use with this batch; in training it includes the batch's estimate.

        Args:
            sampled, exact: see ``estimate``.
            training: if false, nothing is stored. The stored log Z is returned, or this batch's
                estimate if there is none yet.

        Returns:
            Float32 tensor ``()``, in nats.
        """
        stored = ops.convert_to_tensor(self.log_z)
        estimate = self.estimate(sampled, exact)
        if not training:
            return ops.where(ops.isfinite(stored), stored, estimate)
        seen = ops.convert_to_tensor(self.num_batches_seen)
        usable = ops.isfinite(estimate)
        w = ops.cast(self.weight(seen), "float32")
        blended = ops.logaddexp(ops.log1p(-w) + stored, ops.log(w) + estimate)
        blended = ops.where(usable, blended, stored)
        self.log_z.assign(blended)
        self.num_batches_seen.assign(seen + ops.cast(usable, "int32"))
        return blended

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this policy."""
        return {"name": self.name}

    def _state(self, name: str, value: float, dtype: str) -> keras.Variable:
        start = keras.initializers.Constant(value)
        return self.add_weight((), start, dtype, trainable=False, autocast=False, name=name)


@keras.saving.register_keras_serializable(package="instdisc_core")
class FirstBatches(PartitionPolicy):
    """The mean of the first batches' estimates, then fixed, as in the paper.

    Args:
        num_batches: how many batches are averaged, at least 1. The estimate of a single batch of a
            small data set can be far from Z, and is kept for the rest of the training.

    Source:
        Wu et al., section 3.2; the official code takes the first batch. Deviation: the official
        code averages over the positive too, so its Z is larger by the share
        ``(n exp(s_ii) / Z - 1) / (m + 1)`` on average. Measured with 50,000 random rows of width
        128, 128 images per batch and temperature 0.07 (0.1 in brackets): 0.004 % (0.002 %) with
        4096 negatives and 0.3 % (0.1 %) with 64, in either direction, if the features are random
        too, as before training; 14 % (2.4 %) and 880 % (150 %) more if each has cosine 0.5 to its
        own row.

    Example: ``NCE(partition=FirstBatches(num_batches=10))``
    """

    def __init__(self, num_batches: int = 1, **kwargs: Any):
        require_count("num_batches", num_batches)
        super().__init__(**kwargs)
        self.num_batches = int(num_batches)

    def weight(self, num_batches_seen: Tensor) -> Tensor:
        """``1 / t`` at batch ``t`` up to ``num_batches``, then 0."""
        t = ops.cast(num_batches_seen + 1, "float32")
        return ops.where(t <= self.num_batches, 1 / t, 0.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this policy."""
        return {**super().get_config(), "num_batches": self.num_batches}


@keras.saving.register_keras_serializable(package="instdisc_core")
class ConstantPartition(PartitionPolicy):
    """A Z that is known before training.

    Args:
        value: Z itself, not its logarithm; positive and finite.

    Source:
        Wu et al., section 3.2: "treated as a constant". Their value for ImageNet, with
        ``temperature=0.07`` and a random bank, is near ``2.3 * n``.

    Example: ``NCE(partition=ConstantPartition(2.31 * 50_000))``
    """

    def __init__(self, value: float, **kwargs: Any):
        require_number("value", value, 0, open_below=True)
        super().__init__(log_z=math.log(value), **kwargs)
        self.value = float(value)

    def weight(self, num_batches_seen: Tensor) -> Tensor:
        """Always 0."""
        return 0.0

    def load_own_variables(self, store: Any) -> None:
        """See ``keras.Layer``; the constant stays the one of this policy."""
        super().load_own_variables(store)
        self.log_z.assign(math.log(self.value))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this policy."""
        return {**super().get_config(), "value": self.value}


@keras.saving.register_keras_serializable(package="instdisc_core")
class MovingAveragePartition(PartitionPolicy):
    """An exponential moving average of the batches' estimates, which starts at the first.

    Args:
        decay: weight of the old Z, in ``[0, 1)``.

    Source:
        Not in the paper: Z grows while the rows of similar images come together, and the average
        follows it.

    Example: ``NCE(partition=MovingAveragePartition(decay=0.99))``
    """

    def __init__(self, decay: float = 0.99, **kwargs: Any):
        require_number("decay", decay, 0, 1)
        super().__init__(**kwargs)
        self.decay = float(decay)

    def weight(self, num_batches_seen: Tensor) -> Tensor:
        """1 at the first batch, then ``1 - decay``."""
        return ops.where(num_batches_seen == 0, 1.0, 1 - self.decay)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this policy."""
        return {**super().get_config(), "decay": self.decay}


@keras.saving.register_keras_serializable(package="instdisc_core")
class ExactPartition(PartitionPolicy):
    """The mean of the batch's true ``Z_i`` over the whole bank, in every ``every``-th batch.

    Args:
        every: batches from one computation to the next, at least 1.

    Source:
        Not in the paper. One computation costs as much as the loss ``NonParametricSoftmax``.

    Example: ``NCE(partition=ExactPartition(every=10))``
    """

    def __init__(self, every: int = 1, **kwargs: Any):
        require_count("every", every)
        super().__init__(**kwargs)
        self.every = int(every)

    def weight(self, num_batches_seen: Tensor) -> Tensor:
        """1 at every ``every``-th batch, counted from the first, and 0 at the others."""
        return ops.where(num_batches_seen % self.every == 0, 1.0, 0.0)

    def estimate(self, sampled: Tensor, exact: Callable[[], Tensor]) -> Tensor:
        """The exact log Z in every ``every``-th batch, else the stored one."""
        if self.every == 1:
            return exact()
        stored = ops.convert_to_tensor(self.log_z)
        due = ops.convert_to_tensor(self.num_batches_seen) % self.every == 0
        return ops.cond(due, exact, lambda: stored)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this policy."""
        return {**super().get_config(), "every": self.every}


NAMES: dict[str, Callable[[], PartitionPolicy]] = {
    "first_batches": FirstBatches,
    "moving_average": MovingAveragePartition,
    "exact": ExactPartition,
}


def get(identifier: PartitionName | PartitionPolicy) -> PartitionPolicy:
    """The policy of this name, or the policy itself.

    Args:
        identifier: ``"first_batches"``, ``"moving_average"`` or ``"exact"``, each with its
            defaults, or a PartitionPolicy.

    Returns:
        A PartitionPolicy.

    Raises:
        ValueError: neither a known name nor a policy.

    Example: ``policy = instdisc_core.partition.get("exact")``
    """
    if isinstance(identifier, PartitionPolicy):
        return identifier
    require_choice("partition", identifier, NAMES, ", or a PartitionPolicy")
    return NAMES[identifier]()
