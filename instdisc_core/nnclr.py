"""NNCLR: the neighbor of one view is the positive of the other view."""

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from instdisc_core.bank_ops import BankOps
from instdisc_core.communicator import get_communicator, require_one_device
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.heads import prediction_head, projection_head
from instdisc_core.objectives import in_batch_accuracy, in_batch_softmax
from instdisc_core.sums import share
from instdisc_core.support_set import LARGEST, SupportSet, known_images
from instdisc_core.types import Tensor
from instdisc_core.validation import (
    check_indices,
    require,
    require_choice,
    require_count,
    require_temperature,
)


@keras.saving.register_keras_serializable(package="instdisc_core")
class NNCLR(EmbeddingModel):
    """Learns an embedding in which a view of an image predicts the neighbor of another view.

    With the projections ``z1, z2`` of two views of each image, their predictions ``p1, p2``, and
    ``nn(z)`` the nearest row to ``z`` in the support set, a queue of earlier projections:

        L_i = (l(nn(z1), p2)_i + l(nn(z2), p1)_i) / 2,   l = in_batch_softmax

    The negatives are the predictions of the other images of the batch. Neighbors are constants.
    After the loss, projections enter the support set; they can be neighbors from the next step on.
    While it is empty, in the first step, the projection itself is the positive.

    ``fit(images)`` trains it, and ``fit(source.batches())``. No targets are needed. If there are
    some, they are the indices of the images, and only used to log how often a neighbor is the image
    itself; arrays are numbered by position. ``predict(images)`` gives unit embeddings: the
    projections ``z``, which the loss compares and the support set holds. ``encode(images)`` gives
    the encoder's features, which the paper evaluates; ``evaluation.evaluate`` reports both.
    ``evaluate(images)`` gives the mean loss of images that are not augmented, so that both views
    are alike, among the images of each batch. Nothing moves.

    It logs ``neighbor_agreement``, see ``in_batch_accuracy``: the share of images whose neighbor is
    more similar to the image's own prediction than to the others of the batch. Training with a
    support set and with indices also logs ``neighbor_is_image``, the share of neighbors that are
    earlier views of the image itself: take fewer rows than images, to find others.

    Args:
        encoder, augmenter, preprocessing, non_finite: see ``EmbeddingModel``. The augmenter is
            needed, since the two views differ by it.
        embedding_dim: width of the projections, ``d``.
        support_set: a SupportSet; or its number of rows; or None, the control without neighbors,
            in which ``nn(z)`` is ``z`` itself, also a constant.
        temperature: at least 1e-6.
        top_k: in training, the neighbor is drawn among so many nearest rows.
        enqueue: which views enter the support set, ``"first"`` or ``"both"``.
        projector: from the encoder's features to ``(batch, embedding_dim)``; None is
            ``heads.projection_head(embedding_dim)``.
        predictor: from projections to predictions of the same width; None is
            ``heads.prediction_head(embedding_dim)``.
        seed: of the draws among ``top_k``, where the support set is given by its number of rows;
            and of the order of arrays that ``Checkpoints`` can continue.
        backend: see ``registry.get_bank_ops``; not saved with the model.

    Attributes:
        support_set: the SupportSet, or None.
        manifest, rejected_images: see ``EmbeddingModel``.

    Raises:
        ValueError: an argument out of its range, or a support set of another width.

    Source:
        Dwibedi et al., ICCV 2021 (NNCLR), algorithm 1. The support set starts empty instead of
        random. Batch normalization sees both views. The control stops the positive's gradient.

    Example:
    ```python
    model = NNCLR(
        encoder,
        embedding_dim=128,
        support_set=1024,
        projector=heads.projection_head(128, hidden=(64, 64)),
        predictor=heads.prediction_head(128, hidden=(64,)),
        augmenter=simclr_augmentation(32, strength=0.5, blur=False, seed=0),
    )
    model.compile(optimizer="adam")
    model.fit(images, batch_size=20, epochs=2)
    embeddings = model.predict(images)
    ```
    """

    parts = (*EmbeddingModel.parts, "predictor", "support_set")
    smallest_batch = 2
    loss_settings = ("temperature", "top_k", "enqueue")

    def __init__(
        self,
        encoder: Any,
        embedding_dim: int = 256,
        support_set: SupportSet | int | None = 98_304,
        temperature: float = 0.1,
        top_k: int = 1,
        enqueue: Literal["first", "both"] = "first",
        projector: keras.layers.Layer | None = None,
        predictor: keras.layers.Layer | None = None,
        augmenter: keras.layers.Layer | None = None,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        non_finite: Literal["raise", "skip"] = "raise",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        **kwargs: Any,
    ):
        require_one_device("NNCLR", or_ranks=True)
        require_temperature(temperature)
        require_count("top_k", top_k)
        require_choice("enqueue", enqueue, ("first", "both"))
        super().__init__(
            encoder,
            embedding_dim,
            projection_head(embedding_dim) if projector is None else projector,
            augmenter,
            preprocessing,
            non_finite,
            views=2,
            **kwargs,
        )
        if support_set is not None and not isinstance(support_set, SupportSet):
            support_set = SupportSet(support_set, embedding_dim, seed=seed, backend=backend)
        capacity, width = (1, embedding_dim) if support_set is None else support_set.shape
        require(
            width == embedding_dim and top_k <= capacity,
            f"top_k={top_k}, embedding_dim={embedding_dim} and {capacity} rows of width {width}",
            "as many rows as top_k, of width embedding_dim",
            "Give support_set as a number of rows, at least top_k; without one, top_k is 1.",
        )
        self.predictor = prediction_head(embedding_dim) if predictor is None else predictor
        self.support_set, self.communicator = support_set, get_communicator()
        self.temperature, self.top_k = float(temperature), int(top_k)
        self.enqueue, self.seed = enqueue, seed
        found = [] if support_set is None else ["neighbor_is_image"]
        self.add_reports(["neighbor_agreement", *found])

    def build(self, images_shape: Any) -> None:
        """See ``EmbeddingModel.build``."""
        super().build(images_shape)
        self.predict_from(keras.KerasTensor((None, self.embedding_dim)), training=False)

    def call(self, images: Tensor, training: bool | None = None) -> Any:
        """Unit embeddings ``(batch, embedding_dim)``, float32, of a batch of images.

        In training ``(projections, predictions)`` of all first views, followed by all second ones.
        """
        return self._of_own_images(images, True) if training else super().call(images)

    def branches(self, images: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Projections and predictions, each ``(batch, embedding_dim)``, float32, of any length."""
        z = self.project(self.encode(images, training), training)
        return z, self.predict_from(z, training)

    def predict_from(self, projections: Tensor, training: bool | None = None) -> Tensor:
        """The predictor's output ``(batch, embedding_dim)``, in float32."""
        return self.apply_head("predictor", projections, training)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Any = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """The mean loss of the batch; in training the support set then takes its projections."""
        self.require_no_loss()
        y = None if y is None else self.target_indices(y)
        usable = self.usable(x, training)
        z, p = y_pred if training else self._of_own_images(x, training=False)
        views = self.views if training else 1
        z, y, sample_weight = self.whole_batch(z, y, sample_weight, views)
        p, *_ = self.whole_batch(p, views=views)
        nn, is_image = self.positives(z, y, training, usable)
        pairs = [(nn, p)]
        if training:
            (nn1, nn2), (p1, p2) = map(self._by_view, (nn, p))
            pairs = [(nn1, p2), (nn2, p1)]
        halves = [in_batch_softmax(*pair, self.temperature, usable) for pair in pairs]
        losses = ops.mean(ops.stack(halves), axis=0)
        agreement = ops.mean(ops.stack([in_batch_accuracy(*pair, usable) for pair in pairs]))
        if training:
            self._enqueue(z, y, usable, after=losses)
        self.report({"neighbor_agreement": agreement, **is_image})
        return self.total(losses, sample_weight, usable)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        """Update the metrics of ``compile``, which in training are given the projections."""
        rows = y_pred[0] if isinstance(y_pred, tuple) else y_pred
        return super().compute_metrics(x, y, rows, sample_weight)

    def positives(
        self, projections: Tensor, indices: Tensor | None, training: bool, usable: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``nn(z)`` of projections ``(batch, embedding_dim)``, and what is to be logged of them."""
        if self.support_set is None:
            return ops.stop_gradient(projections), {}
        found = self.support_set.neighbors(projections, self.top_k, training)
        if indices is None or not training:  # indices of evaluation may be those of other images
            return found.rows, {}
        own, usable = self.repeated((known_images(indices), usable))
        return found.rows, {"neighbor_is_image": share(found.images == own, own >= 0, usable)}

    def default_targets(self, x: Any) -> Any:
        """Arrays are numbered by their position."""
        parts = keras.tree.flatten(x)
        is_array = all(hasattr(part, "shape") and len(part.shape) > 0 for part in parts)
        return np.arange(parts[0].shape[0], dtype="int32") if parts and is_array else None

    def target_indices(self, y: Tensor) -> Tensor:
        """See ``TrainingModel.target_indices``; any numbers of images."""
        return check_indices(y, LARGEST, of="images")

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this model."""
        config = super().get_config()
        del config["views"]  # always two
        return config | {name: getattr(self, name) for name in (*self.loss_settings, "seed")}

    def _of_own_images(self, images: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """``branches`` of this rank's part of a batch, in training of both views of each image."""
        images, has_none = self.with_stand_in(images)
        z, p = self.branches(self.augmented(images) if training else images, training)
        return self.without_stand_in(z, has_none), self.without_stand_in(p, has_none)

    def _by_view(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of all first views, and those of all second ones."""
        both = ops.reshape(rows, (2, -1, self.embedding_dim))
        return both[0], both[1]

    def _enqueue(self, z: Tensor, y: Tensor | None, usable: Tensor | None, after: Tensor) -> None:
        if self.support_set is None:
            return
        for view in self._by_view(z)[: 1 if self.enqueue == "first" else 2]:
            if usable is not None:
                view = ops.where(usable[:, None], view, math.nan)  # stays out
            self.support_set.enqueue(view, y, after)
