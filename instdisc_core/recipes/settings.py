"""The settings of a training."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from instdisc_core.data import SlidingWindow
from instdisc_core.encoders import Depth, Stem
from instdisc_core.objectives import ObjectiveName
from instdisc_core.validation import require, require_choice, require_number

Augmentation = Literal["paper", "simclr"]
Loss = Literal[ObjectiveName, "nnclr", "pic"]
Optimizer = Literal["sgd", "adamw"]
DtypePolicy = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclass(frozen=True)
class Settings:
    """All settings of a training, from the augmentation to the learning rate.

    Attributes:
        name: of the recipe.
        source: where its settings come from.
        deviations: what differs from there, a tuple of sentences.
        image_size: side in pixels to which a source should resize images.
        crop_size: side in pixels of the images that the encoder sees in training.
        augmentation: ``"paper"`` or ``"simclr"``; see ``instdisc_core.augmentation``.
        augmentation_settings: pairs of name and value, further arguments for it.
        views: how many times each image is augmented in a step.
        encoder: ``"resnet"``, or a published network, such as ``"keras:MobileNetV2"``; see
            ``pretrained.pretrained_encoder``.
        encoder_settings: pairs of name and value, further arguments of the published network.
        weights: path of a file that the encoder starts from; None is random weights. A run that
            continues does not read it again.
        encoder_rate: learning rate of the encoder, as a multiple of ``learning_rate``; 0 keeps the
            encoder as it is and trains the head alone. Other than 0 and 1 it needs Keras 3.15.
        depth, stem, width: of the residual network; see ``encoders.resnet``.
        embedding_dim: ``d``.
        projector: widths of the hidden layers of the projector, see ``heads.projection_head``;
            none is a linear head.
        predictor: the same of NNCLR's predictor, see ``heads.prediction_head``.
        objective: a name that ``objectives.get`` knows; or ``"nnclr"`` for an NNCLR model, or
            ``"pic"`` for a PIC model.
        temperature: ``tau``.
        objective_settings: pairs of name and value, further arguments for the objective, or for
            NNCLR or PIC.
        momentum: of the memory bank; NNCLR and PIC have none.
        sliding_window: window and stride of the order of the images, see ``data.SlidingWindow``;
            None shows every image once in each epoch.
        batch_size, epochs: of the training.
        drop_remainder: leave out the images that do not fill a batch, others in each epoch.
        optimizer: ``"sgd"`` or ``"adamw"``.
        optimizer_momentum: of SGD.
        learning_rate: the largest one, after the warm-up.
        weight_decay: for SGD the factor of an L2 term as PyTorch's SGD has it, for PIC's class
            weights too; for AdamW the decoupled one, and none for class weights, whose steps are
            SGD's.
        warmup_epochs: number of epochs in which the learning rate rises linearly.
        milestones: epochs at which it is divided by 10; with none it falls to 0 along a cosine.
            Not together with a warm-up.
        num_neighbors, knn_temperature: of the nearest-neighbor classifier in evaluations.
        dtype_policy: Keras's; the bank, scores and losses are float32 in any.

    Raises:
        ValueError: an option that is not one of those of its type, a warm-up with milestones, a
            predictor without NNCLR, a window that is no multiple of its stride, or an
            ``encoder_rate`` below 0, or other than 0 and 1 with PIC.
    """

    name: str
    source: str
    deviations: tuple[str, ...] = ()
    image_size: int = 32
    crop_size: int = 32
    augmentation: Augmentation = "paper"
    augmentation_settings: tuple[tuple[str, Any], ...] = ()
    views: int = 1
    encoder: str = "resnet"
    encoder_settings: tuple[tuple[str, Any], ...] = ()
    weights: str | None = None
    encoder_rate: float = 1.0
    depth: Depth = 18
    stem: Stem = "cifar"
    width: int = 64
    embedding_dim: int = 128
    projector: tuple[int, ...] = ()
    predictor: tuple[int, ...] = ()
    objective: Loss = "non_parametric_softmax"
    temperature: float = 0.1
    objective_settings: tuple[tuple[str, Any], ...] = ()
    momentum: float = 0.5
    batch_size: int = 128
    epochs: int = 200
    drop_remainder: bool = False
    sliding_window: tuple[int, int] | None = None
    optimizer: Optimizer = "sgd"
    optimizer_momentum: float = 0.9
    learning_rate: float = 0.03
    weight_decay: float = 5e-4
    warmup_epochs: int = 0
    milestones: tuple[int, ...] = (120, 160)
    num_neighbors: int = 200
    knn_temperature: float = 0.1
    dtype_policy: DtypePolicy = "float32"

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(Settings).items():
            if get_origin(annotation) is Literal:
                require_choice(name, getattr(self, name), get_args(annotation))
        require(
            not (self.warmup_epochs and self.milestones),
            f"warmup_epochs={self.warmup_epochs} and milestones={self.milestones}",
            "a warm-up, which a cosine follows, or milestones",
            "Set warmup_epochs=0, or milestones=().",
        )
        require_number("encoder_rate", self.encoder_rate, 0)
        require(
            self.encoder_rate in (0, 1) or self.objective != "pic",
            f"encoder_rate={self.encoder_rate} and objective='pic'",
            "0 or 1: PIC's class weights follow the one learning rate of the optimizer",
        )
        is_nnclr = self.objective == "nnclr"
        require(
            not is_nnclr or (self.views == 2 and len(self.predictor) > 0),
            f"objective='nnclr', views={self.views} and predictor={self.predictor}",
            "two views and a predictor",
            "Set views=2 and predictor=(4096,).",
        )
        if self.sliding_window is not None:
            SlidingWindow(*self.sliding_window)
        require(
            is_nnclr or not self.predictor,
            f"predictor={self.predictor} and objective={self.objective!r}",
            "a predictor with objective='nnclr' only",
            "Set predictor=(), or take a recipe of NNCLR.",
        )

    @property
    def mirrors(self) -> bool:
        """Whether half of the training's crops are mirrored left to right."""
        return bool(dict(self.augmentation_settings).get("flip", True))

    def to_dict(self) -> dict[str, Any]:
        """All settings, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __str__(self) -> str:
        settings = self.to_dict()
        source, deviations = settings.pop("source"), settings.pop("deviations")
        lines = [f"recipe {settings.pop('name')}, after {source}"]
        lines += [f"  {name}: {value}" for name, value in settings.items()]
        lines += ["  deviations:", *(f"  - {sentence}" for sentence in deviations)]
        return "\n".join(lines if deviations else lines[:-1])
