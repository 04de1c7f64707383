"""The parts of a training, built from its settings."""

import keras
from keras.optimizers import schedules

from instdisc_core import objectives
from instdisc_core.augmentation import paper_augmentation, simclr_augmentation
from instdisc_core.objectives import Objective
from instdisc_core.recipes.settings import Settings


def build_objective(settings: Settings, seed: int | None = None) -> Objective:
    """The objective."""
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


def build_optimizer(settings: Settings, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer, with the learning rate as a schedule."""
    rate = build_learning_rate(settings, steps_per_epoch)
    if settings.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
    # Keras takes the decay off the weights themselves; in PyTorch it goes through the momentum,
    # which adds up to 1 / (1 - momentum) times as much.
    decay = settings.weight_decay / (1 - settings.optimizer_momentum)
    return keras.optimizers.SGD(rate, settings.optimizer_momentum, weight_decay=decay)
