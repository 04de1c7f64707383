"""The parts of a training, built from its settings."""

import re
from dataclasses import replace

import keras
from keras.optimizers import schedules

from instdisc_core import objectives
from instdisc_core.augmentation import paper_augmentation, simclr_augmentation
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.encoders import resnet
from instdisc_core.heads import prediction_head, projection_head
from instdisc_core.model import InstanceDiscrimination
from instdisc_core.nnclr import NNCLR
from instdisc_core.objectives import Objective
from instdisc_core.pic import PIC
from instdisc_core.pretrained import load_encoder, pretrained_encoder, require_image_size
from instdisc_core.recipes.settings import Settings
from instdisc_core.validation import require


def build_model(
    settings: Settings, num_instances: int, seed: int | None = None, sharded: bool = False
) -> InstanceDiscrimination | NNCLR | PIC:
    """The model, not compiled. The dtype policy holds for its encoder and heads.

    ``sharded`` is for InstanceDiscrimination alone.
    """
    objective = build_objective(settings, seed)
    augmenter, dim = build_augmenter(settings, seed), settings.embedding_dim
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.dtype_policy)
    try:
        encoder = build_encoder(settings)
        hidden = settings.projector
        projector = projection_head(dim, hidden, normalized=False) if hidden else None
        if settings.objective == "pic":
            return PIC(
                encoder,
                num_instances,
                dim,
                temperature=settings.temperature,
                momentum=settings.optimizer_momentum,
                weight_decay=settings.weight_decay if settings.optimizer == "sgd" else 0.0,
                projector=projector,
                augmenter=augmenter,
                seed=seed,
                views=settings.views,
                **dict(settings.objective_settings),
            )
        if objective is None:
            return NNCLR(
                encoder,
                dim,
                temperature=settings.temperature,
                projector=projection_head(dim, settings.projector),
                predictor=prediction_head(dim, settings.predictor),
                augmenter=augmenter,
                seed=seed,
                **dict(settings.objective_settings),
            )
        return InstanceDiscrimination(
            encoder,
            num_instances,
            dim,
            objective,
            settings.momentum,
            projector,
            augmenter=augmenter,
            seed=seed,
            views=settings.views,
            sharded=sharded,
        )
    finally:
        keras.config.set_dtype_policy(before)


def build_encoder(settings: Settings) -> keras.layers.Layer:
    """The encoder, with the weights of its file if the settings name one."""
    if settings.encoder == "resnet":
        encoder: keras.layers.Layer = resnet(
            settings.depth, stem=settings.stem, width=settings.width, include_preprocessing=True
        )
        if settings.weights is not None:
            load_encoder(encoder, settings.weights, "the residual network of the recipe")
    else:
        arguments = dict(settings.encoder_settings)
        encoder = pretrained_encoder(settings.encoder, settings.weights, **arguments)
        for size in {settings.crop_size, settings.image_size}:
            require_image_size(encoder, size, f"encoder={settings.encoder!r}")
    encoder.trainable = settings.encoder_rate > 0
    return encoder


def build_objective(settings: Settings, seed: int | None = None) -> Objective | None:
    """The objective; None for NNCLR and PIC, whose losses are not one."""
    if settings.objective == "nnclr" or settings.objective == "pic":
        return None
    arguments = dict(settings.objective_settings)
    return objectives.get(settings.objective, seed, temperature=settings.temperature, **arguments)


def build_augmenter(settings: Settings, seed: int | None = None) -> keras.layers.Layer:
    """The augmentation, for pixels in ``[0, 255]``."""
    build = paper_augmentation if settings.augmentation == "paper" else simclr_augmentation
    arguments = dict(settings.augmentation_settings)
    return build(settings.crop_size, seed=seed, **arguments)


def build_learning_rate(settings: Settings, steps_per_epoch: int) -> schedules.LearningRateSchedule:
    """The learning rate at each step, counted from 0.

    Source:
        The milestones are Wu et al.'s; the cosine is Loshchilov and Hutter's, ICLR 2017.
    """
    if settings.milestones:
        # Keras's boundary is the last step before the change, not the first step after it.
        boundaries = [epoch * steps_per_epoch - 1 for epoch in sorted(settings.milestones)]
        rates = [settings.learning_rate / 10**i for i in range(len(boundaries) + 1)]
        return schedules.PiecewiseConstantDecay(boundaries, rates)
    steps, warmup_steps = (
        epochs * steps_per_epoch for epochs in (settings.epochs, settings.warmup_epochs)
    )
    decay_steps = max(1, steps - warmup_steps)
    if not warmup_steps:
        return schedules.CosineDecay(settings.learning_rate, decay_steps)
    return schedules.CosineDecay(
        settings.learning_rate / warmup_steps,  # not 0: the first step should train, too
        decay_steps,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
    )


def build_optimizer(
    settings: Settings, steps_per_epoch: int, model: EmbeddingModel | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer, with the learning rate as a schedule.

    Args:
        settings: of the training.
        steps_per_epoch: batches in an epoch.
        model: what it trains, built; needed where the encoder has a learning rate of its own.
    """
    heads = _one_rate(settings, steps_per_epoch)
    if model is None or settings.encoder_rate in (0, 1):
        return heads
    require(
        hasattr(keras.optimizers, "MultiOptimizer"),
        f"encoder_rate={settings.encoder_rate} with Keras {keras.__version__}",
        "Keras 3.15 or later, or encoder_rate=1",
    )
    slower = replace(settings, learning_rate=settings.encoder_rate * settings.learning_rate)
    encoder = _one_rate(slower, steps_per_epoch)
    of_encoder = {_name(variable) for variable in model.encoder.trainable_variables}
    others = [_name(v) for v in model.trainable_variables if _name(v) not in of_encoder]
    require(
        len(of_encoder) + len(others) == len(model.trainable_variables),
        "an encoder and a head with weights of the same name",
        "different names, by which each is given its learning rate",
    )
    of_heads = f"(.*/)?({'|'.join(map(re.escape, others))})"
    rates = keras.optimizers.OptimizerMap(encoder, {of_heads: heads})
    return keras.optimizers.MultiOptimizer(rates)


def _name(variable: keras.Variable) -> str:
    """The layer and the weight: what stays of a variable's path when a model is loaded."""
    return "/".join(variable.path.split("/")[-2:])


def _one_rate(settings: Settings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of parts with the same learning rate."""
    rate = build_learning_rate(settings, steps_per_epoch)
    if settings.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    # Keras takes the decay off the weights themselves; in PyTorch it goes through the momentum,
    # which adds up to 1 / (1 - momentum) times as much.
    decay = settings.weight_decay / (1 - settings.optimizer_momentum)
    return keras.optimizers.SGD(rate, settings.optimizer_momentum, weight_decay=decay)
