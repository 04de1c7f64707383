"""InstanceDiscrimination: encoder, memory bank and objective as one Keras model."""

import math
from typing import Any, Literal

import keras
from keras import ops

from instdisc_core import objectives
from instdisc_core.bank_ops import BankOps
from instdisc_core.communicator import Communicator
from instdisc_core.data import Manifest
from instdisc_core.instance_model import InstanceModel
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.objectives import Objective, ObjectiveName
from instdisc_core.types import RowStorage, StorageDtype, Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class InstanceDiscrimination(InstanceModel):
    """Learns an embedding in which every image is a class of its own.

    ``fit(images, indices)`` trains it: the target of an image is its index, 0 to
    ``num_instances - 1``, the same in every epoch. ``fit(source.batches())`` trains it on an
    ``instdisc_core.data.ImageSource``, whose manifest it then keeps and checks.
    ``predict(images)`` gives unit embeddings, ``evaluate(images, indices)`` the mean loss in nats,
    and moves nothing. ``compile`` takes an optimizer and no loss: the objective is the loss. A
    ``sample_weight`` is a factor of it, and nothing else: rows of images of weight 0 move, too.

    Args:
        encoder, embedding_dim, projector, augmenter, preprocessing, non_finite: see
            ``EmbeddingModel``.
        num_instances: number of training images, ``n``.
        objective: ``"nce"``, ``"shared_nce"``, ``"non_parametric_softmax"``, ``"info_nce"``,
            ``"parametric_softmax"``, ``"idfd"``, or an Objective.
        momentum: of the memory bank, in ``[0, 1)``.
        bank_dtype: storage of the memory bank, see ``MemoryBank``.
        seed: of the memory bank's start, and of the negatives of an objective given by name.
        backend: see ``registry.get_bank_ops``; not saved with the model.
        communicator, sharded: see ``EmbeddingTable``; how several devices train it together.
        views: how many times each image is augmented in a training step. Every view is the
            image's own: the loss is the mean over views, and the row of the bank moves once,
            toward the mean of them.
        bank_storage: where the bank's rows are, see ``MemoryBank``; not saved with the model.

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
        Wu et al., CVPR 2018, figure 2. Several views in a step are an addition.

    Example:
    ```python
    model = InstanceDiscrimination(encoder, num_instances=len(images), objective="shared_nce")
    model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    model.fit(images, np.arange(len(images)), epochs=2)
    scores, neighbors = model.memory_bank.search(model.predict(images[:4]), k=10)
    ```
    """

    parts = (*InstanceModel.parts, "objective")
    saves_manifest = False  # the memory bank does
    memory_bank: MemoryBank

    def __init__(
        self,
        encoder: Any,
        num_instances: int,
        embedding_dim: int = 128,
        objective: ObjectiveName | Objective | dict[str, Any] = "nce",
        momentum: float = 0.5,
        projector: keras.layers.Layer | None = None,
        augmenter: keras.layers.Layer | None = None,
        bank_dtype: StorageDtype = "float32",
        seed: int | None = None,
        backend: str | BankOps | None = None,
        preprocessing: keras.layers.Layer | Literal["torch"] | None = None,
        non_finite: Literal["raise", "skip"] = "raise",
        views: int = 1,
        bank_storage: RowStorage = None,
        communicator: Communicator | None = None,
        sharded: bool = False,
        **kwargs: Any,
    ):
        super().__init__(
            encoder,
            embedding_dim,
            projector,
            augmenter,
            preprocessing,
            non_finite,
            views,
            **kwargs,
        )
        self.memory_bank = MemoryBank(
            num_instances,
            embedding_dim,
            momentum,
            bank_dtype,
            seed,
            backend,
            bank_storage,
            communicator,
            sharded,
        )
        self.communicator = self.memory_bank.communicator
        self.objective = objectives.get(objective, seed=seed)
        if not self.objective.built:
            self.objective.build(self.memory_bank.shape)
        self.seed = seed
        self.add_reports(self.objective.report())

    def instance_rows(self) -> MemoryBank:
        """See ``InstanceModel.instance_rows``."""
        return self.memory_bank

    @property
    def manifest(self) -> Manifest | None:
        """The Manifest of the images that the bank's rows belong to, or None."""
        return self.memory_bank.manifest

    @manifest.setter
    def manifest(self, manifest: Manifest | None) -> None:
        self.memory_bank.manifest = manifest

    def check_batch(self, num_images: int | None) -> None:
        """See ``TrainingModel.check_batch``; the objective knows."""
        if num_images is not None:
            self.objective.check_batch(self.views * num_images, self.embedding_dim)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """The mean of the objective over the batch; in training the bank then moves."""
        self.require_no_loss()
        self.require_targets(y)
        usable = self.usable(x, training)
        y_pred, y, sample_weight = self.whole_batch(
            y_pred, y, sample_weight, self.views if training else 1
        )
        if training:
            y, sample_weight, usable = self.repeated((y, sample_weight, usable))
        y_pred = self.counted_rows(y_pred, usable)
        bank = self.memory_bank
        with self.divided(bank):
            losses = self.objective(y_pred, y, bank, training=training, counted=usable)
        loss = self.total(losses, sample_weight, usable)
        if usable is not None:
            y_pred = ops.where(usable[:, None], y_pred, math.nan)  # moves no row
        if training:
            bank.update(y, y_pred, after=losses)
        self.report(self.objective.report())
        return loss

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this model."""
        bank = self.memory_bank.get_config()
        return {
            **super().get_config(),
            "num_instances": bank["num_instances"],
            "momentum": bank["momentum"],
            "bank_dtype": bank["dtype"],
            "seed": self.seed,
        }
