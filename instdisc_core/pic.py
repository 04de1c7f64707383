"""PIC: a classifier with a class for each image, whose steps touch a few classes."""

import math
from typing import Any, Literal

import keras
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.class_weights import ClassWeights
from instdisc_core.communicator import require_one_device
from instdisc_core.fitting import RejectedGradients, require_plain_steps
from instdisc_core.heads import projection_head
from instdisc_core.instance_model import InstanceModel
from instdisc_core.objectives import cosine_softmax
from instdisc_core.sums import count
from instdisc_core.types import Tensor
from instdisc_core.validation import require_count, require_number, require_temperature


@keras.saving.register_keras_serializable(package="instdisc_core")
class PIC(InstanceModel):
    """Learns an embedding as a classifier in which every image is a class of its own.

    One view of each image is enough. With the unit embedding ``f_i`` of image ``i`` and the
    trained weights ``w_j`` of each class:

        s_ij = f_i . w_j / (|w_j| temperature)
        L_i  = log sum_{j in C} exp s_ij - s_ii

    ``C`` are the images of the batch and, as negatives, the ``recent_negatives`` different images
    that were seen last before it. In a step only their weights are read and written, so that its
    time does not grow with the number of images; the weights are still those of a dense step, see
    ``ClassWeights``. They have the learning rate of the optimizer, which must be one, and step with
    every batch.

    Train it on ``source.batches(..., sliding_window=SlidingWindow(...))``, so that an image comes
    again before its class is forgotten. ``fit``, ``predict`` and ``evaluate`` are those of
    ``InstanceDiscrimination``. Evaluated images are compared with the weights that a training step
    would take, and nothing moves.

    Args:
        encoder, embedding_dim, augmenter, preprocessing, non_finite: see ``EmbeddingModel``.
        num_instances: number of training images, ``n``.
        recent_negatives: how many of the images seen last are negatives, at least 1.
        temperature: at least 1e-6.
        momentum, weight_decay: of the class weights, see ``ClassWeights``.
        rate_factor: the class weights' learning rate, as a multiple of the optimizer's; at least 0.
        projector: from the encoder's features to ``(batch, embedding_dim)``; None is
            ``heads.projection_head(embedding_dim, (2048,), normalized=False)``.
        seed: of the class weights' start.
        backend: see ``registry.get_bank_ops``; not saved with the model.
        views: how many times each image is augmented in a training step; the loss is their mean.

    Attributes:
        class_weights: the ClassWeights.
        recent: variable int32, the images that were seen last, the newest first; then -1.
        manifest, rejected_images: see ``EmbeddingModel``.

    Raises:
        ValueError: an argument out of its range. ``fit`` and ``evaluate`` raise it for indices as
            those of ``InstanceDiscrimination`` do.

    Source:
        Cao et al., NeurIPS 2020 (PIC). Batch normalization in the head is an addition. Negatives
        are those before the batch and the batch's other images.

    Example:
    ```python
    model = PIC(
        encoder,
        num_instances=len(photos),
        recent_negatives=16,
        projector=heads.projection_head(128, (64,), normalized=False),
        augmenter=simclr_augmentation(32, strength=0.5, blur=False, seed=0),
    )
    model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    model.fit(photos.batches(8, seed=0, sliding_window=SlidingWindow(20, stride=5)), epochs=2)
    embeddings = model.predict(photos.ordered())
    ```
    """

    def __init__(
        self,
        encoder: Any,
        num_instances: int,
        embedding_dim: int = 128,
        recent_negatives: int = 65_536,
        temperature: float = 0.2,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        rate_factor: float = 1.0,
        projector: keras.layers.Layer | None = None,
        augmenter: keras.layers.Layer | None = None,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        non_finite: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        views: int = 1,
        **kwargs: Any,
    ):
        require_count("recent_negatives", recent_negatives)
        require_one_device("PIC")
        require_temperature(temperature)
        require_number("rate_factor", rate_factor, 0)
        super().__init__(
            encoder,
            embedding_dim,
            projection_head(embedding_dim, (2048,), False) if projector is None else projector,
            augmenter,
            preprocessing,
            non_finite,
            views,
            **kwargs,
        )
        self.class_weights = ClassWeights(
            num_instances, embedding_dim, momentum, weight_decay, seed=seed, backend=backend
        )
        self.recent_negatives, self.temperature = int(recent_negatives), float(temperature)
        self.rate_factor, self.seed = float(rate_factor), seed
        self.recent = self.add_weight(
            name="recent",
            shape=(min(self.recent_negatives, num_instances),),  # all others will never be there
            dtype="int32",
            initializer=keras.initializers.Constant(-1),
            trainable=False,
        )
        self._rate: Tensor | None = None

    def instance_rows(self) -> ClassWeights:
        """See ``InstanceModel.instance_rows``."""
        return self.class_weights

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """The mean loss of the batch; in training the class weights then make their step."""
        self.require_no_loss()
        self.require_targets(y)
        y = self.target_indices(y)
        usable = self.usable(x, training)
        known = self.class_weights.contains(y)
        sampled = known if usable is None else ops.logical_and(known, usable)
        own = ops.cast(ops.where(known, y, 0), "int32")
        classes, counted, targets = self._classes(own, sampled)
        if training:
            known, usable, targets, sample_weight = self.repeated(
                (known, usable, targets, sample_weight)
            )
        y_pred = self.counted_rows(y_pred, usable)
        weights, _ = self.class_weights.present(classes)
        compared = ops.logical_or(counted, ops.logical_not(ops.any(counted)))  # never none at all
        shares = self._shares(known, usable, sample_weight)
        losses, gradient = cosine_softmax(
            y_pred, weights, targets, self.temperature, compared, shares
        )
        losses = ops.where(known, losses, math.nan)
        if training:
            self.class_weights.rejected_indices.assign_add(count(ops.logical_not(known)))
            self.class_weights.update(classes, gradient, self.rate_factor * self._learning_rate())
            self._remember(classes, counted)
        return self.total(losses, sample_weight, usable)

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """See ``InstanceModel.own_callbacks``; and what tells of gradients that are not finite."""
        return [RejectedGradients(), *super().own_callbacks()]

    def train_step(self, *args: Any) -> Any:
        """See ``keras.Model.train_step``.

        On JAX the state of the optimizer is an argument of the step, which Keras does not hand on
        to ``compute_loss``.
        """
        require_plain_steps(self.optimizer)
        if len(args) == 1:
            return super().train_step(*args)
        state: Any = args[0]
        with keras.StatelessScope(list(zip(self.optimizer.variables, state[2], strict=True))):
            self._rate = ops.convert_to_tensor(self.optimizer.learning_rate)
        try:
            return super().train_step(*args)
        finally:
            self._rate = None

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this model."""
        weights = self.class_weights.get_config()
        own = ("recent_negatives", "temperature", "rate_factor", "seed")
        of_weights = ("num_instances", "momentum", "weight_decay")
        return {
            **super().get_config(),
            **{name: weights[name] for name in of_weights},
            **{name: getattr(self, name) for name in own},
        }

    def _classes(self, own: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The classes of a step, which of them count, and the position of each image's own.

        A class is given once: where it is first in the batch, or else where it is in ``recent``.
        """
        equal = own[:, None] == own[None, :]
        targets = ops.cast(ops.argmax(equal, axis=1), "int32")
        positions = ops.arange(ops.shape(own)[0], dtype="int32")
        is_seen = ops.any(ops.logical_and(equal, sampled[None, :]), axis=1)
        of_batch = ops.logical_and(targets == positions, is_seen)
        recent = ops.convert_to_tensor(self.recent)
        seen = ops.sort(ops.where(sampled, own, -1))
        near = ops.minimum(ops.searchsorted(seen, recent), ops.shape(own)[0] - 1)
        of_recent = ops.logical_and(recent >= 0, ops.take(seen, near) != recent)
        counted = ops.concatenate([of_batch, of_recent])
        return ops.concatenate([own, ops.maximum(recent, 0)]), counted, targets

    def _remember(self, classes: Tensor, counted: Tensor) -> None:
        """Put the classes of the batch in front of those that were seen before."""
        size = ops.shape(classes)[0]
        order = ops.arange(size, dtype="int32") + ops.where(counted, 0, size)
        newest = ops.argsort(order)[: self.recent.shape[0]]
        self.recent.assign(ops.where(ops.take(counted, newest), ops.take(classes, newest), -1))

    def _shares(self, known: Tensor, usable: Tensor | None, sample_weight: Any) -> Tensor:
        """The factor of each image's loss in ``total``."""
        used = known if usable is None else ops.logical_and(known, usable)
        shares = ops.cast(used, "float32")
        if sample_weight is not None:
            shares = shares * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        all_images = ops.ones_like(known) if usable is None else usable
        return shares / ops.maximum(ops.sum(ops.cast(all_images, "float32")), 1.0)

    def _learning_rate(self) -> Tensor:
        return self.optimizer.learning_rate if self._rate is None else self._rate
