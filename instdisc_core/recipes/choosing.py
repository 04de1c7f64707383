"""A recipe for any images, from their number and size, the speed of this machine, and the time."""

import dataclasses
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from instdisc_core.data import ImageSource
from instdisc_core.data.glance import glance
from instdisc_core.recipes.colors import with_colors_kept
from instdisc_core.recipes.handedness import as_handed
from instdisc_core.recipes.named import RecipeName, get
from instdisc_core.recipes.recipe import Recipe
from instdisc_core.recipes.run_folder import stored_settings
from instdisc_core.recipes.speed import seconds_per_step
from instdisc_core.validation import require, require_number

BASE: RecipeName = "small-cifar10"
MINUTES = 10.0
USED = 0.9  # of the time; the rest is for reading the images, and for what follows the training
EPOCH_END = 0.2  # seconds: the log and the checkpoint at the end of each epoch
FEWEST_IMAGES = 200
CLEARLY = 0.95  # of the time of a step that another number format must take to be chosen


class Sizes(NamedTuple):
    """Sizes in pixels, and the images and the time that they are for.

    Attributes:
        image: side of the images, and of what is embedded.
        crop: side of the crops that the encoder sees in training.
        side: images whose shorter side is at least so long.
        steps: of training that must fit into the time.
        why: the reason.
    """

    image: int
    crop: int
    side: int
    steps: int
    why: str


SIZES = (  # the first that the images and the time allow
    Sizes(
        64, 48, 49, 1900, "neighbors were better than at 32 pixels on two of three sets of photos"
    ),
    Sizes(32, 32, 0, 0, "steps are fast; better neighbors than with crops of 24 on CIFAR-10"),
)


def for_images(
    images: str | os.PathLike | ImageSource,
    minutes: float | None = None,
    output: str | os.PathLike | None = None,
    speed: Callable[[Recipe], float] | None = None,
    verbose: bool = True,
) -> Recipe:
    """A recipe for these images that takes so long on this machine, and at least one epoch.

    It measures for a few seconds how long a training step takes here, longer where the framework
    compiles, looks at up to 512 images, and chooses image size, crop, mirroring, changes of color,
    number format and epochs by the rules that its ``deviations`` state; everything else is as in
    ``small-cifar10``, with smaller batches where there are fewer images.
    The rules were chosen on held-out images of several collections; see ``docs/experiments.md``.

    Args:
        images: a folder's path; or an ImageSource, whose size the recipe then takes.
        minutes: how long ``train`` may take; None is 10. If one epoch takes longer, what is
            printed says so.
        output: the folder that ``train`` writes to. If a run was begun there, its recipe is
            returned, so that the same command continues it.
        speed: function of a recipe that returns the seconds of one training step; None measures.
        verbose: print what was chosen and why.

    Returns:
        A Recipe. Read the folder with ``size=recipe.image_size``.

    Raises:
        ValueError: the folder does not exist or holds no images, a source whose images are not
            square, fewer than 2 images, ``minutes`` that are not greater than 0, or other ones
            than the run in ``output`` was begun for; or several ranks: choose the recipe before
            they are started.

    Example:
    ```python
    recipe = recipes.for_images("photos", minutes=0.01, speed=lambda recipe: 0.1)
    source = data.ImageFolder("photos", recipe.image_size)
    ```
    """
    if minutes is not None:
        require_number("minutes", minutes, 0, open_below=True)
    begun = None if output is None else stored_settings(Path(output))
    if begun is not None:
        recipe = Recipe(**begun)
        require(
            minutes is None or recipe.source.endswith(_in_minutes(minutes)),
            f"minutes={minutes}, and {output}, which holds a run of {recipe.name}: {recipe.source}",
            "another folder for another run",
            "Leave the minutes out to continue that run.",
        )
        if verbose:
            print(f"{output} holds a run that was begun, whose recipe is taken.")
        return recipe
    minutes = MINUTES if minutes is None else minutes
    count, side, pixels = glance(images)
    require(count > 1, f"{count} images", "at least 2 to train on")
    sizes = _allowed(side, isinstance(images, ImageSource))
    speed = speed or partial(seconds_per_step, num_images=count)
    recipe, step, reasons = _chosen(sizes, count, minutes, speed)
    recipe = in_time(recipe, count, minutes, step)
    for adapt in (as_handed, with_colors_kept):
        recipe, why = adapt(recipe, pixels)
        reasons += why
    seconds = step * math.ceil(count / recipe.batch_size) + EPOCH_END  # of an epoch
    if seconds > _usable(minutes):
        epochs = (
            f"1 epoch takes {seconds:.3g} s, longer than the {_usable(minutes):.3g} s of "
            f"{minutes:g} minutes that are for training"
        )
    else:
        epochs = "1 epoch fits" if recipe.epochs == 1 else f"{recipe.epochs} epochs fit"
        epochs += f" into {minutes:g} minutes"
    reasons.append(f"{epochs}: a step of {recipe.batch_size} images takes {step:.3g} s here.")
    if count < FEWEST_IMAGES:
        reasons.append(
            f"{count} images are few: each is a class, and the embedding may be no better than "
            "pixels."
        )
    recipe = dataclasses.replace(
        recipe,
        name="for-images",
        source=f"{BASE}, for {count:,} images of about {side} pixels{_in_minutes(minutes)}",
        deviations=tuple(reasons),
    )
    if verbose:
        print("\n".join([f"recipe for {count:,} images:", *(f"- {reason}" for reason in reasons)]))
    return recipe


def in_time(recipe: Recipe, num_images: int, minutes: float, step: float) -> Recipe:
    """The recipe with as many epochs as fit.

    Args:
        recipe: whose warm-up keeps its share of the epochs.
        num_images: to train on.
        minutes: for the whole training.
        step: seconds of a training step.

    Example: ``recipe = recipes.in_time(recipes.get("small-cifar10"), 10_000, 5, step=0.2)``
    """
    steps = max(1, math.ceil(num_images / recipe.batch_size))
    epochs = max(1, int(_usable(minutes) / (step * steps + EPOCH_END)))
    warmup = round(epochs * recipe.warmup_epochs / recipe.epochs)
    return dataclasses.replace(recipe, epochs=epochs, warmup_epochs=min(warmup, epochs - 1))


def _allowed(side: int, is_fixed: bool) -> list[Sizes]:
    """The sizes for images of this side, the best first."""
    allowed = [sizes for sizes in SIZES if side >= sizes.side]
    if not is_fixed:
        return allowed
    best = allowed[0]
    crop = side * best.crop // best.image
    return [Sizes(side, crop, side, 0, "the images have this size")]


def _chosen(
    allowed: list[Sizes], count: int, minutes: float, speed: Callable[[Recipe], float]
) -> tuple[Recipe, float, list[str]]:
    """The recipe but for its epochs, the seconds of a step, and the reasons.

    The number format is measured at the last, smallest size: an emulated one is many times slower.
    """
    *larger, smallest = allowed
    base = dataclasses.replace(get(BASE), batch_size=min(get(BASE).batch_size, count))
    reasons = []
    recipe, step, why = _faster(_resized(base, smallest), speed)
    for sizes in larger:
        candidate = _resized(recipe, sizes)
        needed = speed(candidate)
        steps = int(_usable(minutes) / needed)
        if steps >= sizes.steps:
            return candidate, needed, [_reason(sizes), *why]
        reasons.append(
            f"Not {sizes.image} pixels: {steps:,} steps would fit into the time, {sizes.steps:,} "
            "should."
        )
    return recipe, step, [*reasons, _reason(smallest), *why]


def _resized(recipe: Recipe, sizes: Sizes) -> Recipe:
    return dataclasses.replace(recipe, image_size=sizes.image, crop_size=sizes.crop)


def _reason(sizes: Sizes) -> str:
    return f"Images of {sizes.image} pixels, crops of {sizes.crop}: {sizes.why}."


def _faster(recipe: Recipe, speed: Callable[[Recipe], float]) -> tuple[Recipe, float, list[str]]:
    """The recipe in the number format that trains faster here, the seconds of a step, and why."""
    exact = dataclasses.replace(recipe, dtype_policy="float32")
    step, of_exact = speed(recipe), speed(exact)
    if of_exact >= CLEARLY * step:
        return recipe, step, []
    why = (
        f"float32: a step with crops of {recipe.crop_size} takes {of_exact:.3g} s here, and "
        f"{step:.3g} s in {recipe.dtype_policy}."
    )
    return exact, of_exact, [why]


def _in_minutes(minutes: float) -> str:
    """How the source of a recipe ends."""
    return f" and {minutes:g} minutes"


def _usable(minutes: float) -> float:
    """Seconds of a time that training may take."""
    return USED * 60 * minutes
