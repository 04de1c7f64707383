"""InstanceDiscrimination: encoder, memory bank and objective as one Keras model."""

import math
from typing import Literal

import keras
from keras import ops

from instdisc_core import objectives
from instdisc_core.data import ImageBatches, Manifest
from instdisc_core.data.checked import finite_images, with_narrow_indices, without_non_finite
from instdisc_core.encoders import TorchPreprocessing
from instdisc_core.fitting import calls
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.persistent_model import PersistentModel
from instdisc_core.validation import check_indices, require

SMALLEST_SQUARE = 1e-14  # of a length; below, a row has no direction


@keras.saving.register_keras_serializable(package="instdisc_core")
class InstanceDiscrimination(PersistentModel):
    """Learns an embedding in which every image is a class of its own.

    ``fit(images, indices)`` trains it: the target of an image is its index, 0 to
    ``num_instances - 1``, the same in every epoch. ``fit(source.batches())`` trains it on an
    ``instdisc_core.data.ImageSource``, whose manifest it then keeps and checks.
    ``predict(images)`` gives unit embeddings, ``evaluate(images, indices)`` the mean loss in nats,
    and moves nothing. ``compile`` takes an optimizer and no loss: the objective is the loss.

    Args:
        encoder: from a batch of images to ``(batch, features)``: any Keras model or layer, or,
            on the torch backend, any ``torch.nn.Module``; see ``preprocessing``.
        num_instances: number of training images, ``n``.
        embedding_dim: width of the embedding, ``d``.
        objective: ``"nce"``, ``"shared_nce"``, ``"non_parametric_softmax"``, ``"info_nce"``,
            ``"parametric_softmax"``, or an Objective; see ``cheapest_objective``.
        momentum: of the memory bank, in ``[0, 1)``.
        projector: from the encoder's features to ``(batch, embedding_dim)``; None is a dense
            layer, the paper's linear head. The L2 norm is always taken after it.
        augmenter: applied to the images in training only; any Keras layer or model.
        preprocessing: applied to the images before the encoder, always; any Keras layer or model,
            or ``"torch"`` for an encoder that expects ``(batch, channels, height, width)``,
            normalized as torchvision's are; see ``encoders.TorchPreprocessing``. Keras, and the
            batches of an ImageSource, have ``(batch, height, width, channels)``.
        bank_dtype: storage of the memory bank, see ``MemoryBank``.
        seed: of the memory bank's start, and of the negatives of an objective given by name.
        non_finite: what to do about training images that hold NaN or an infinity, which would
            otherwise ruin all weights: ``"raise"`` an error (arrays are checked before the first
            step; for other data ``fit`` raises at the end of the epoch), or ``"skip"`` them with
            one warning for each epoch. In neither case do they train anything.
        backend: see ``registry.get_bank_ops``; not saved with the model.

    Attributes:
        memory_bank: the MemoryBank.
        objective: the Objective.
        manifest: the Manifest of the images that the bank's rows belong to, or None.
        rejected_images: variable ``()``, int32: training images so far that were not finite.

    Raises:
        ValueError: an argument out of its range, or an unknown objective. ``fit``, ``evaluate``
            and the ``*_on_batch`` methods raise it for indices that are not integers, not
            one-dimensional, or out of range. Arrays are checked before the first step. A data
            set or generator is checked batch by batch in eager execution; in a compiled step,
            which cannot raise, such an image gets the loss NaN and trains nothing, and ``fit``
            raises at the end of the epoch.

    Source:
        Wu et al., CVPR 2018, figure 2.

    Example:
    ```python
    model = InstanceDiscrimination(encoder, num_instances=len(images), objective="nce")
    model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    model.fit(images, np.arange(len(images)), epochs=200)
    scores, neighbors = model.memory_bank.search(model.predict(queries), k=10)
    ```
    """

    parts = ("augmenter", "preprocessing", "encoder", "projector", "objective")

    def __init__(
        self,
        encoder,
        num_instances,
        embedding_dim=128,
        objective="nce",
        momentum=0.5,
        projector=None,
        augmenter=None,
        bank_dtype="float32",
        seed=None,
        backend=None,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        non_finite: Literal["raise", "skip"] = "raise",
        **kwargs,
    ):
        require(non_finite in ("raise", "skip"), f"non_finite={non_finite!r}", "'raise' or 'skip'")
        require(
            isinstance(preprocessing, keras.layers.Layer) or preprocessing in (None, "torch"),
            f"preprocessing={preprocessing!r}",
            "a Keras layer, 'torch', or None",
        )
        super().__init__(**kwargs)
        self.memory_bank = MemoryBank(
            num_instances, embedding_dim, momentum, bank_dtype, seed, backend, name="memory_bank"
        )
        self.objective = objectives.get(objective, seed=seed)
        if not self.objective.built:
            self.objective.build(self.memory_bank.shape)
        self.encoder = encoder
        self.projector = keras.layers.Dense(embedding_dim) if projector is None else projector
        self.augmenter = augmenter
        self.preprocessing = TorchPreprocessing() if preprocessing == "torch" else preprocessing
        self.non_finite = non_finite
        self.rejected_images = self.add_weight(
            name="rejected_images", shape=(), dtype="int32", initializer="zeros", trainable=False
        )
        self.seed = seed
        if hasattr(self.objective, "partition"):
            self.log_z_tracker = keras.metrics.Mean(name="log_z")

    @property
    def manifest(self) -> Manifest | None:
        """The Manifest of the images that the bank's rows belong to, or None."""
        return self.memory_bank.manifest

    @manifest.setter
    def manifest(self, manifest):
        self.memory_bank.manifest = manifest

    def build(self, images_shape):
        """Build all parts for images of this shape, whose first axis is the batch.

        ``fit`` and the first call do it by themselves.
        """
        images = keras.tree.map_shape_structure(
            lambda shape: keras.KerasTensor((None, *shape[1:])), images_shape
        )
        if self.augmenter is not None:
            images = self.augmenter(images, training=True)
        self.compute_output_spec(images, training=False)  # training would move running means

    def call(self, images, training=None):
        """Unit embeddings ``(batch, embedding_dim)``, float32, of a batch of images."""
        if training:
            images = without_non_finite(images)
            if self.augmenter is not None:
                images = self.augmenter(images, training=True)
        if self.preprocessing is not None:
            images = self.preprocessing(images)
        features = self._encoded(images, training)
        require(
            len(features.shape) == 2,
            f"an encoder whose output has shape {tuple(features.shape)}",
            "shape (batch, features)",
            "Pool it: pooling='avg' in keras.applications, or a GlobalAveragePooling2D layer.",
        )
        embeddings = self.projector(features, training=training)
        require(
            tuple(embeddings.shape[1:]) == (self.memory_bank.embedding_dim,),
            f"a projector whose output has shape {tuple(embeddings.shape)}",
            f"shape (batch, {self.memory_bank.embedding_dim}), as embedding_dim says",
        )
        return _unit(ops.cast(embeddings, "float32"))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean of the objective over the batch; in training the bank then moves."""
        self._check_targets(y)
        usable = finite_images(x) if training else None
        if usable is not None:  # what stands in for an image that is not finite counts for nothing
            any_unit_row = ops.one_hot(0, y_pred.shape[1], dtype=y_pred.dtype)
            y_pred = ops.where(usable[:, None], y_pred, any_unit_row)
        losses = self.objective(y_pred, y, self.memory_bank, training=training)
        loss = _weighted_mean(losses, sample_weight, usable)
        if usable is not None:
            rejected = ops.cast(ops.logical_not(usable), "int32")
            self.rejected_images.assign_add(ops.sum(rejected))
            y_pred = ops.where(usable[:, None], y_pred, math.nan)  # moves no row
        for regularizer in self.losses:
            loss = loss + regularizer
        if training:
            self.memory_bank.update(y, y_pred, after=losses)
        if hasattr(self, "log_z_tracker"):
            self.log_z_tracker.update_state(self.objective.partition.log_z)
        return loss

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs
    ):
        """Train; see ``keras.Model.fit``. ``y`` holds the instance index of each image.

        With ``Checkpoints`` among the callbacks, training continues where it was killed.
        """
        arguments = {
            "x": x,
            "y": self._checked(y),
            "batch_size": batch_size,
            "epochs": epochs,
            "verbose": verbose,
            "callbacks": callbacks,
            **kwargs,
        }
        with calls(self, arguments) as calls_of_fit:
            for arguments in calls_of_fit:
                history = super().fit(**arguments)
        return history

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", **kwargs):
        """The loss in nats; see ``keras.Model.evaluate``. Nothing moves."""
        if isinstance(x, ImageBatches):
            self.check_data(x.manifest)
        x = with_narrow_indices(x)
        return super().evaluate(x, self._checked(y), batch_size, verbose, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Unit embeddings ``(n, embedding_dim)``; see ``keras.Model.predict``."""
        require(
            not isinstance(x, ImageBatches) or x.seed is None,
            "batches in the order of training",
            "images in the order of their indices",
            "Give predict source.ordered().",
        )
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """One step; see ``keras.Model.train_on_batch``."""
        return super().train_on_batch(x, self._checked(y), *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """The loss of one batch; see ``keras.Model.test_on_batch``."""
        return super().test_on_batch(x, self._checked(y), *args, **kwargs)

    def check_data(self, manifest):
        """Raise unless the data are those that the bank was trained on.

        ``fit`` remembers the manifest of the first ImageSource that it trains on, and it is saved
        with the model. Until then any data of the bank's length will do.

        Args:
            manifest: the Manifest of the data at hand.

        Raises:
            ValueError: it names the images that differ, or says how many rows the bank has.
        """
        n = self.memory_bank.num_instances
        require(
            len(manifest) == n,
            f"a data set with {len(manifest)} images",
            f"{n}, one for each row of the memory bank",
            f"Build the model with num_instances={len(manifest)}.",
        )
        if self.manifest is not None:
            self.manifest.check(manifest)

    def get_config(self):
        """The arguments that rebuild this model."""
        parts = {
            "encoder": self.encoder,
            "objective": self.objective,
            "projector": self.projector,
            "augmenter": self.augmenter,
            "preprocessing": self.preprocessing,
        }
        bank = self.memory_bank.get_config()
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_instances": bank["num_instances"],
            "embedding_dim": bank["embedding_dim"],
            "momentum": bank["momentum"],
            "bank_dtype": bank["dtype"],
            "seed": self.seed,
            "non_finite": self.non_finite,
            **{k: keras.saving.serialize_keras_object(v) for k, v in parts.items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuild a model from its configuration."""
        nested = {k: v for k, v in config.items() if isinstance(v, dict)}
        restored = {
            k: keras.saving.deserialize_keras_object(v, custom_objects) for k, v in nested.items()
        }
        return cls(**{**config, **restored})

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Load weights; see ``PersistentModel.load_weights``. The manifest stays with the rows."""
        manifest = self.manifest
        try:
            super().load_weights(filepath, skip_mismatch, **kwargs)
        except Exception:
            self.manifest = manifest
            raise

    def _encoded(self, images, training):
        """The encoder's features; an error of PyTorch's names what may be missing."""
        try:
            return self.encoder(images, training=training)
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

    def _check_targets(self, y):
        require(
            getattr(self, "loss", None) is None,
            f"compile(loss={getattr(self, 'loss', None)!r})",
            "no loss: the objective is the loss",
            "Leave it out of compile().",
        )
        require(
            y is not None,
            "no targets",
            "the instance index of each image",
            "For an array: fit(images, numpy.arange(len(images))).",
        )

    def _checked(self, y):
        """Targets that are an array, checked; any others as they are."""
        if hasattr(y, "dtype") or isinstance(y, (list, tuple)):
            return check_indices(y, self.memory_bank.num_instances)
        return y


def _unit(rows):
    """The rows divided by their lengths; a row of zeros stays and has a finite gradient.

    ``ops.normalize`` gives NaN gradients there under PyTorch.
    """
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    return rows * ops.rsqrt(ops.maximum(squares, SMALLEST_SQUARE))


def _weighted_mean(losses, sample_weight, usable):
    """The mean over the images that are usable, each with its weight."""
    if sample_weight is not None:
        losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
    if usable is None:
        return ops.mean(losses)
    count = ops.sum(ops.cast(usable, losses.dtype))
    return ops.sum(ops.where(usable, losses, 0.0)) / ops.maximum(count, 1.0)
