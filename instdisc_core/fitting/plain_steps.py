"""Optimizers that step with every batch, at one learning rate."""

from typing import Any

import keras

from instdisc_core.validation import require


def require_plain_steps(optimizer: Any) -> None:
    """Raise unless rows that step with every batch can have the optimizer's learning rate.

    Args:
        optimizer: of ``compile``, as Keras has it afterwards.

    Raises:
        ValueError: it steps after several batches, or has several learning rates.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps = getattr(inner, "gradient_accumulation_steps", None)
    require(
        steps is None,
        f"an optimizer with gradient_accumulation_steps={steps}",
        "one that steps with every batch, as the class weights do",
        "Take larger batches instead.",
    )
    require(
        not isinstance(inner, getattr(keras.optimizers, "MultiOptimizer", ())),
        "a MultiOptimizer",
        "an optimizer with one learning rate, which the class weights have too",
    )
