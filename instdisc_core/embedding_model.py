"""What every method shares: from images to unit embeddings."""

from collections.abc import Mapping
from typing import Any, Literal, Self

import keras
from keras import ops

from instdisc_core import native_layers
from instdisc_core.data.checked import finite_images, without_non_finite
from instdisc_core.encoders import TorchPreprocessing
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.normalization import unit
from instdisc_core.ranked_model import RankedModel
from instdisc_core.sums import count
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_choice, require_count


@keras.saving.register_keras_serializable(package="instdisc_core")
class EmbeddingModel(RankedModel):
    """An encoder with a head, trained without labels; subclasses implement ``compute_loss``.

    In training, each image is augmented ``views`` times: the model then returns the embeddings of
    all first views, followed by those of all second views, and so on.

    Args:
        encoder: from a batch of images to ``(batch, features)``: any Keras model or layer, or,
            on the torch backend, any ``torch.nn.Module``; see ``preprocessing``.
        embedding_dim: width of the embedding, ``d``.
        projector: from the encoder's features to ``(batch, embedding_dim)``; None is a dense
            layer, the paper's linear head. The L2 norm is always taken after it.
        augmenter: applied to the images in training only; any Keras layer or model.
        preprocessing: applied to the images before the encoder, always; any Keras layer or model,
            or ``"torch"`` for an encoder that expects ``(batch, channels, height, width)``,
            normalized as torchvision's are; see ``encoders.TorchPreprocessing``. Keras, and the
            batches of an ImageSource, have ``(batch, height, width, channels)``.
        non_finite: what to do about training images that hold NaN or an infinity, which would
            otherwise ruin all weights: ``"raise"`` an error (arrays are checked before the first
            step; for other data ``fit`` raises at the end of the epoch), or ``"skip"`` them with
            one warning for each epoch. In neither case do they train anything; a batch of nothing
            else is still a step of the optimizer's momentum, and a loss of 0 in the mean.
        views: how many times each image is augmented in a training step, at least 1. The metrics
            of ``compile`` count each view as an image.

    Attributes:
        manifest: the Manifest of the images that the model is trained on, or None.
        memory_bank: the MemoryBank with a row for each training image, or None where the method
            has none.
        rejected_images: variable ``()``, int32: training images so far that were not finite.

    Raises:
        ValueError: an argument out of its range, or several views and no augmenter.
    """

    memory_bank: MemoryBank | None
    parts: tuple[str, ...] = ("augmenter", "preprocessing", "encoder", "projector")

    def __init__(
        self,
        encoder: Any,
        embedding_dim: int = 128,
        projector: keras.layers.Layer | None = None,
        augmenter: keras.layers.Layer | None = None,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        non_finite: Literal["raise", "skip"] = "raise",
        views: int = 1,
        **kwargs: Any,
    ):
        require_count("embedding_dim", embedding_dim)
        require_count("views", views)
        require(
            views == 1 or augmenter is not None,
            f"views={views} and no augmenter",
            "an augmenter, so that the views of an image differ",
            "Pass one, such as instdisc_core.augmentation.simclr_augmentation(32).",
        )
        require_choice("non_finite", non_finite, ("raise", "skip"))
        require(
            isinstance(preprocessing, keras.layers.Layer) or preprocessing in (None, "torch"),
            f"preprocessing={preprocessing!r}",
            "a Keras layer, 'torch', or None",
        )
        super().__init__(**kwargs)
        self.embedding_dim = int(embedding_dim)
        self.encoder = encoder
        self.projector = keras.layers.Dense(embedding_dim) if projector is None else projector
        self.augmenter = augmenter
        self.preprocessing = TorchPreprocessing() if preprocessing == "torch" else preprocessing
        self.non_finite = non_finite
        self.views = int(views)
        self.memory_bank = None
        self.rejected_images = self.add_weight(
            name="rejected_images", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def build(self, images_shape: Any) -> None:
        """Build all parts for images of this shape, whose first axis is the batch.

        ``fit`` and the first call do it by themselves.
        """
        images = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor((None, *shape[1:])), images_shape
        )
        if self.augmenter is not None:
            images = self.augmenter(images, training=True)
        self.compute_output_spec(images, training=False)  # training would move running means

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Unit embeddings ``(batch, embedding_dim)``, float32, of a batch of images.

        In training ``(views * batch, embedding_dim)``.
        """
        images, has_none = self.with_stand_in(images)
        if training:
            images = self.augmented(images)
        embeddings = unit(self.project(self.encode(images, training), training))
        return self.without_stand_in(embeddings, has_none)

    def augmented(self, images: Tensor) -> Tensor:
        """All views of a batch of training images."""
        images = self.repeated(without_non_finite(images))
        return images if self.augmenter is None else self.augmenter(images, training=True)

    def repeated(self, rows: Tensor) -> Tensor:
        """A batch, or nested ones, ``views`` times: all of it, and then all of it again."""
        if self.views == 1:
            return rows

        def stacked(x: Tensor | None) -> Tensor | None:
            return None if x is None else ops.concatenate([x] * self.views)

        return keras.tree.map_structure(stacked, rows)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        """Update the metrics of ``compile``: each view has its image's target and weight."""
        if self.views > 1:
            rows = ops.arange(ops.shape(y_pred)[0])  # of one view in evaluation, of all in training

            def of_each_row(targets: Tensor | None) -> Tensor | None:
                if targets is None:
                    return None
                return ops.take(targets, rows % ops.shape(targets)[0], axis=0)

            y, sample_weight = keras.tree.map_structure(of_each_row, (y, sample_weight))
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def encode(self, images: Tensor, training: bool | None = None) -> Tensor:
        """The encoder's features ``(batch, features)`` of images that are augmented already."""
        if self.preprocessing is not None:
            images = self.preprocessing(images)
        try:
            features = native_layers.call(self.encoder, images, training, self.communicator.layers)
        except RuntimeError as error:
            require(
                type(error) is not RuntimeError  # out of memory, say
                or self.preprocessing is not None
                or not isinstance(self.encoder, keras.layers.TorchModuleWrapper),
                f"images of shape {tuple(images.shape)}, on which the torch.nn.Module fails: "
                f"{error}",
                "images as the module expects them",
                "preprocessing='torch' gives it (batch, channels, height, width), normalized.",
            )
            raise
        require(
            len(features.shape) == 2,
            f"an encoder whose output has shape {tuple(features.shape)}",
            "shape (batch, features)",
            "Pool it: pooling='avg' in keras.applications, or a GlobalAveragePooling2D layer.",
        )
        return features

    def project(self, features: Tensor, training: bool | None = None) -> Tensor:
        """The projector's output ``(batch, embedding_dim)``, in float32."""
        return self.apply_head("projector", features, training)

    def apply_head(self, name: str, rows: Tensor, training: bool | None) -> Tensor:
        """The output ``(batch, embedding_dim)``, in float32, of the part of this name."""
        embeddings = native_layers.call(
            getattr(self, name), rows, training, self.communicator.layers
        )
        require(
            tuple(embeddings.shape[1:]) == (self.embedding_dim,),
            f"a {name} whose output has shape {tuple(embeddings.shape)}",
            f"shape (batch, {self.embedding_dim}), as embedding_dim says",
            f"Change the last layer of the {name}, or embedding_dim.",
        )
        return ops.cast(embeddings, "float32")

    def require_no_loss(self) -> None:
        """Raise if ``compile`` was given a loss.

        Raises:
            ValueError: there is one.
        """
        loss = getattr(self, "loss", None)
        require(
            loss is None,
            f"compile(loss={loss!r})",
            "no loss: the model brings its own",
            "Leave it out of compile().",
        )

    def usable(self, images: Tensor, training: bool) -> Tensor | None:
        """Which images of the whole batch train the model, boolean; None is all of them.

        In training those that are not finite do not, and are counted.
        """
        usable = finite_images(images) if training else None
        if usable is not None:
            usable = self.communicator.all_gather(usable)
            self.rejected_images.assign_add(count(ops.logical_not(usable)))
        return usable

    def total(self, losses: Tensor, sample_weight: Tensor | None, usable: Tensor | None) -> Tensor:
        """The mean loss over the images that are usable, each with its weight; and regularizers."""
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        if usable is None:
            loss = ops.mean(losses)
        else:
            images = ops.maximum(ops.cast(count(usable), losses.dtype), 1.0)
            loss = ops.sum(ops.where(usable, losses, 0.0)) / images
        return self.communicator.whole_loss(loss, self.losses)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this model."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "embedding_dim": self.embedding_dim,
            "non_finite": self.non_finite,
            "views": self.views,
            **{part: serialize(getattr(self, part)) for part in self.parts},
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Rebuild a model from its configuration."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))
