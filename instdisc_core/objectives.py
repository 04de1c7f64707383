"""The objectives: each reads like its equation, and brings its gradient in closed form.

Symbols, after Wu et al.: ``f_i`` the unit embedding of image ``i``, ``v_j`` row ``j`` of the memory
bank, ``s_ij = v_j . f_i / temperature``, ``n`` images, ``m`` negatives, ``P_n`` the noise.
"""

import math

import keras
from einops import rearrange, reduce
from keras import ops

from instdisc_core.gradients import attach_gradient
from instdisc_core.negative_sampler import UniformSampler
from instdisc_core.partition import MovingAveragePartition
from instdisc_core.validation import (
    check_features,
    check_indices,
    check_paired,
    require,
    require_count,
    require_number,
)


class Objective(keras.layers.Layer):
    """A loss for each image of a batch, given the memory bank.

    Called as ``objective(features, indices, bank, negatives=None, training=True)``. It reads the
    bank and never moves it: call ``bank.update(indices, features)`` afterwards. Subclasses
    implement ``losses_and_gradient``; the proximal term and the checks are added here.

    Args:
        temperature: ``tau``, greater than 0.
        proximal_weight: ``lambda``, at least 0, of the term ``lambda |f_i - v_i|^2``, with ``v_i``
            the row before this step's update. It keeps an embedding from jumping between two
            visits: each image is seen once an epoch. The paper tries 0, 10, 30 and 50.

    Source:
        Wu et al., CVPR 2018; the proximal term is section 3.3, equation 10, which the official
        code lacks.
    """

    def __init__(self, temperature, proximal_weight=0.0, **kwargs):
        require_number("temperature", temperature, 0, open_below=True)
        require_number("proximal_weight", proximal_weight, 0)
        super().__init__(dtype="float32", **kwargs)
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
            negatives = check_indices(
                negatives, bank.num_instances, name="negatives", ranks=(1, 2)
            )
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


@keras.saving.register_keras_serializable(package="instdisc_core")
class NonParametricSoftmax(Objective):
    """The exact softmax over all images.

        L_i      = log sum_j exp s_ij - s_ii
        dL_i/df  = (sum_j p_ij v_j - v_i) / temperature,    p_i = softmax(s_i)

    Both come out of one streaming pass of attention; the ``batch x n`` scores are never held. At
    50,000 images this costs less than its approximation by NCE.

    Args:
        temperature: greater than 0; the paper uses 0.07 on ImageNet, 0.1 on CIFAR-10.
        proximal_weight: see ``Objective``.

    Source:
        Wu et al., section 3.1, equation 2.

    Example:

    ```python
    objective = NonParametricSoftmax(temperature=0.1)
    losses = objective(features, indices, bank)
    ```
    """

    def __init__(self, temperature=0.07, proximal_weight=0.0, **kwargs):
        super().__init__(temperature, proximal_weight, **kwargs)

    def losses_and_gradient(self, features, indices, bank, negatives, training):
        """See ``Objective.losses_and_gradient``."""
        _refuse_negatives(self, negatives)
        v = bank.lookup(indices)
        log_partition, expected_row = bank.attend(features, self.temperature)
        s = ops.sum(features * v, axis=1) / self.temperature
        return log_partition - s, (expected_row - v) / self.temperature


class SampledObjective(Objective):
    """What the objectives with sampled negatives share: the drawing and the scoring of rows.

    Args:
        num_negatives: ``m``, at least 1.
        temperature, proximal_weight: see ``Objective``.
        sampler: a NegativeSampler; None is ``UniformSampler()``.
        shared_negatives: draw one set for the whole batch. Each image's expected loss is the same,
            and the gather of ``batch x m`` rows becomes one product of two matrices.
        seed: of the default sampler.
    """

    def __init__(
        self,
        num_negatives,
        temperature,
        proximal_weight=0.0,
        sampler=None,
        shared_negatives=False,
        seed=None,
        **kwargs,
    ):
        require_count("num_negatives", num_negatives)
        super().__init__(temperature, proximal_weight, **kwargs)
        self.num_negatives = int(num_negatives)
        self.sampler = UniformSampler(seed=seed) if sampler is None else sampler
        self.shared_negatives = bool(shared_negatives)
        require(
            not (self.shared_negatives and self.sampler.exclude_positive),
            "shared_negatives=True with a sampler that has exclude_positive=True",
            "one or the other",
            "What is the positive of one image is a negative of the next.",
        )

    def candidates(self, indices, bank, negatives, training):
        """The positive and the negatives of each image, ready to be scored."""
        if negatives is None:
            negatives = self.sampler.sample(
                indices, bank.num_instances, self.num_negatives, self.shared_negatives, training
            )
        return _Candidates(indices, negatives, bank)

    def get_config(self):
        """The arguments that rebuild this objective."""
        return {
            **super().get_config(),
            "num_negatives": self.num_negatives,
            "sampler": keras.saving.serialize_keras_object(self.sampler),
            "shared_negatives": self.shared_negatives,
        }


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
        temperature: greater than 0.
        proximal_weight: see ``Objective``.
        sampler: the noise; None is ``UniformSampler()``, the paper's.
        partition: the policy for Z; None is ``MovingAveragePartition(decay=0.9)``. Its state is
            readable as ``objective.partition.log_partition``.
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
        num_negatives=4096,
        temperature=0.07,
        proximal_weight=0.0,
        sampler=None,
        partition=None,
        shared_negatives=False,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            num_negatives, temperature, proximal_weight, sampler, shared_negatives, seed, **kwargs
        )
        self.partition = MovingAveragePartition(decay=0.9) if partition is None else partition

    def losses_and_gradient(self, features, indices, bank, negatives, training):
        """See ``Objective.losses_and_gradient``."""
        candidates = self.candidates(indices, bank, negatives, training)
        s_positive, s_negatives = candidates.scores(features, self.temperature)
        log_p_positive, log_p_negatives = candidates.log_probabilities(self.sampler)

        def exact_log_z():
            return _log_mean_exp(bank.attend(features, self.temperature)[0])

        sampled_log_z = _log_mean_exp(s_negatives - log_p_negatives, axis=1)
        if self.sampler.exclude_positive:
            sampled_log_z = ops.logaddexp(sampled_log_z, s_positive[:, 0])
        log_z = self.partition.log_z(_log_mean_exp(sampled_log_z), exact_log_z, training)

        log_m = math.log(candidates.num_negatives)
        l_positive = s_positive - log_z - (log_m + log_p_positive)
        l_negatives = s_negatives - log_z - (log_m + log_p_negatives)
        losses = -ops.log_sigmoid(l_positive)[:, 0] - ops.sum(ops.log_sigmoid(-l_negatives), axis=1)
        gradient = candidates.combine(ops.sigmoid(l_positive) - 1, ops.sigmoid(l_negatives))
        return losses, gradient / self.temperature

    def get_config(self):
        """The arguments that rebuild this objective."""
        partition = keras.saving.serialize_keras_object(self.partition)
        return {**super().get_config(), "partition": partition}


@keras.saving.register_keras_serializable(package="instdisc_core")
class InfoNCE(SampledObjective):
    """A softmax over the positive and ``m`` sampled negatives.

        L_i      = log(exp s_ii + sum_k exp s_ij_k) - s_ii
        dL_i/df  = (p_i v_i + sum_k p_k v_j_k - v_i) / temperature,    p = softmax(s_ii, s_ij_1, ...)

    Args:
        num_negatives: ``m``, at least 1.
        temperature: greater than 0.
        proximal_weight: see ``Objective``.
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
        num_negatives=65536,
        temperature=0.07,
        proximal_weight=0.0,
        sampler=None,
        shared_negatives=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            num_negatives, temperature, proximal_weight, sampler, shared_negatives, seed, **kwargs
        )

    def losses_and_gradient(self, features, indices, bank, negatives, training):
        """See ``Objective.losses_and_gradient``."""
        candidates = self.candidates(indices, bank, negatives, training)
        s_positive, s_negatives = candidates.scores(features, self.temperature)
        log_partition = ops.logaddexp(s_positive[:, 0], ops.logsumexp(s_negatives, axis=1))
        p_positive = ops.exp(s_positive - log_partition[:, None])
        p_negatives = ops.exp(s_negatives - log_partition[:, None])
        gradient = candidates.combine(p_positive - 1, p_negatives)
        return log_partition - s_positive[:, 0], gradient / self.temperature


@keras.saving.register_keras_serializable(package="instdisc_core")
class ParametricSoftmax(Objective):
    """The baseline: an ordinary classifier with one trained weight vector for each image.

        L_i = log sum_j exp(w_j . f_i / temperature) - w_i . f_i / temperature

    It reads the bank's shape alone; its weights ``w`` are trained by the optimiser, and are built
    at the first call or by ``build(bank.shape)``. Logits are ``batch x n``.

    Args:
        temperature: greater than 0.
        seed: integer that makes the starting weights repeatable.

    Source:
        Wu et al., section 3.1, equation 1 (with a temperature, 1 in the paper); Cao et al., PIC.

    Example: ``losses = ParametricSoftmax(temperature=0.1)(features, indices, bank)``
    """

    def __init__(self, temperature=0.07, seed=None, **kwargs):
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
        _refuse_negatives(self, negatives)
        valid = bank.contains(indices)
        indices = ops.cast(ops.where(valid, indices, 0), "int32")
        s = ops.matmul(features, ops.transpose(self.w)) / self.temperature
        s_positive = ops.take_along_axis(s, rearrange(indices, "image -> image 1"), axis=1)[:, 0]
        return ops.where(valid, ops.logsumexp(s, axis=1) - s_positive, math.nan)

    def get_config(self):
        """The arguments that rebuild this objective."""
        return {"name": self.name, "temperature": self.temperature, "seed": self.seed}


OBJECTIVES = {
    "nce": NCE,
    "nonparametricsoftmax": NonParametricSoftmax,
    "infonce": InfoNCE,
    "parametricsoftmax": ParametricSoftmax,
}


def get(identifier, seed=None):
    """The objective meant by a name, a class's configuration, or an objective itself.

    Args:
        identifier: ``"nce"``, ``"non_parametric_softmax"``, ``"info_nce"`` or
            ``"parametric_softmax"``, which build the objective with its defaults (underscores
            and capitals don't matter); a serialised objective; or an Objective.
        seed: of an objective that is built from its name.

    Returns:
        An Objective.

    Raises:
        ValueError: the name is unknown, or the argument is none of these.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Objective):
        return identifier
    known = ("nce", "non_parametric_softmax", "info_nce", "parametric_softmax")
    key = identifier.replace("_", "").lower() if isinstance(identifier, str) else None
    require(key in OBJECTIVES, f"objective={identifier!r}", f"one of {known}, or an Objective")
    chosen = OBJECTIVES[key]
    return chosen() if chosen is NonParametricSoftmax else chosen(seed=seed)


class _Candidates:
    """The rows that a batch is scored against: each image's own, and its negatives.

    They are gathered together, once: two gathers from a bank that is then updated make XLA copy
    the whole bank twice. Shared negatives make one matrix product, of which each image uses its own
    element of the square of positives.
    """

    def __init__(self, indices, negatives, bank):
        self.bank = bank
        self.shared = len(negatives.shape) == 1
        self.num_negatives = negatives.shape[-1]
        self.batch = ops.shape(indices)[0]
        self.rows = (
            ops.concatenate([indices, negatives])
            if self.shared
            else ops.concatenate([rearrange(indices, "image -> image 1"), negatives], axis=1)
        )

    def scores(self, features, temperature):
        """``s_ii`` ``(batch, 1)`` and ``s_ij_k`` ``(batch, m)``."""
        s = self.bank.scores(features, self.rows) / temperature
        if not self.shared:
            return s[:, :1], s[:, 1:]
        own = ops.eye(self.batch) * s[:, : self.batch]
        return reduce(own, "image positive -> image 1", "sum"), s[:, self.batch :]

    def combine(self, positive, negatives):
        """``sum_j c_j v_j`` over the positive ``(batch, 1)`` and the negatives ``(batch, m)``."""
        own = ops.eye(self.batch) * positive if self.shared else positive
        return self.bank.combine(ops.concatenate([own, negatives], axis=1), self.rows)

    def log_probabilities(self, sampler):
        """``log P_n`` of the positive and of the negatives; each broadcasts to its scores."""
        log_p = sampler.log_probabilities(self.rows, self.bank.num_instances)
        if isinstance(log_p, float):
            return log_p, log_p
        if self.shared:
            return log_p[: self.batch, None], log_p[None, self.batch :]
        return log_p[:, :1], log_p[:, 1:]


def _log_mean_exp(x, axis=None):
    """``log mean exp x``; it stays finite where the exponentials do not."""
    terms = ops.shape(x)[axis] if axis is not None else ops.size(x)
    return ops.logsumexp(x, axis=axis) - ops.log(ops.cast(terms, "float32"))


def _refuse_negatives(objective, negatives):
    require(
        negatives is None,
        f"negatives for {type(objective).__name__}",
        "none: it runs over all instances",
    )
