"""A recipe for any images, from their number and size, the speed of this machine, and the time."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.data.native_size import native_size
from instdisc_core.recipes.named import get
from instdisc_core.recipes.recipe import Recipe
from instdisc_core.recipes.run_folder import stored_settings
from instdisc_core.validation import require, require_number

BASE = "small-cifar10"
MEASURED_SECONDS = 4.0  # of training steps, after the first ones, which compile
MEASURED_IMAGES = 2000  # rows of the bank in a measurement
USED = 0.9  # of the time; the rest is for reading the images, and for what follows the training
FEWEST_IMAGES = 200


def for_images(
    images: str | os.PathLike | ImageSource,
    minutes: float = 10.0,
    output: str | os.PathLike | None = None,
    speed: Callable[[Recipe], float] | None = None,
    verbose: bool = True,
) -> Recipe:
    """A recipe for these images that takes so long on this machine.

    It measures for a few seconds how long a training step takes here, longer where the framework
    compiles, and chooses image size, crop, encoder, batch and epochs by the rules that its
    ``deviations`` state. They were chosen on held-out images of several collections; see
    ``docs/experiments.md``.

    Args:
        images: a folder's path; or an ImageSource, whose size the recipe then takes.
        minutes: how long ``train`` may take.
        output: the folder that ``train`` writes to. If a run was begun there, its recipe is
            returned, so that the same command continues it.
        speed: function of a recipe that returns the seconds of one training step; None measures.
        verbose: print what was chosen and why.

    Returns:
        A Recipe. Read the folder with ``size=recipe.image_size``.

    Raises:
        ValueError: the folder does not exist or holds no images, a source whose images are not
            square, fewer than 2 images, or ``minutes`` that are not greater than 0.

    Example:
    ```python
    recipe = recipes.for_images("photos", minutes=0.01, speed=lambda recipe: 0.1)
    source = data.ImageFolder("photos", recipe.image_size)
    ```
    """
    require_number("minutes", minutes, 0, open_below=True)
    if output is not None:
        begun = stored_settings(Path(output))
        if begun is not None:
            if verbose:
                print(f"{output} holds a run that was begun, whose recipe is taken.")
            return Recipe(**begun)
    count, side = _looked_at(images)
    require(count > 1, f"{count} images", "at least 2 to train on")
    speed = seconds_per_step if speed is None else speed
    recipe, reasons = _chosen(count, side, isinstance(images, ImageSource))
    step = speed(recipe)
    recipe = in_time(recipe, count, minutes, step)
    reasons.append(
        f"{recipe.epochs} epochs: a step of {recipe.batch_size} images takes {step:.3g} s here, so "
        f"that they fit into {minutes:g} minutes."
    )
    if count < FEWEST_IMAGES:
        reasons.append(
            f"{count} images are few: each is a class, and the embedding may be no better than "
            "pixels."
        )
    recipe = dataclasses.replace(
        recipe,
        name="for-images",
        source=f"{BASE}, for {count:,} images of about {side} pixels and {minutes:g} minutes",
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
    """
    steps = max(1, math.ceil(num_images / recipe.batch_size))
    epochs = max(1, int(USED * 60 * minutes / (step * steps)))
    warmup = round(epochs * recipe.warmup_epochs / recipe.epochs)
    return dataclasses.replace(recipe, epochs=epochs, warmup_epochs=min(warmup, epochs - 1))


def seconds_per_step(recipe: Recipe) -> float:
    """The median time of a training step of this recipe on random images, in seconds."""
    side = recipe.image_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (recipe.batch_size, side, side, 3)).astype("uint8")
    indices = rng.choice(MEASURED_IMAGES, recipe.batch_size, replace=False).astype("int32")
    model = recipe.build(MEASURED_IMAGES)
    for _ in range(2):
        model.train_on_batch(images, indices)
    times: list[float] = []
    while sum(times) < MEASURED_SECONDS and len(times) < 50:
        start = time.perf_counter()
        model.train_on_batch(images, indices)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _looked_at(images: str | os.PathLike | ImageSource) -> tuple[int, int]:
    """Number of images and side in pixels."""
    if not isinstance(images, ImageSource):
        return native_size(Path(images))
    height, width = images.size
    require(height == width, f"images of {height} x {width} pixels", "square ones")
    return len(images), height


def _chosen(count: int, side: int, is_fixed: bool) -> tuple[Recipe, list[str]]:
    """The recipe but for its epochs, and the reasons."""
    recipe = get(BASE)
    reasons: list[str] = []
    size = side if is_fixed else 32
    if size != recipe.image_size:
        recipe = dataclasses.replace(recipe, image_size=size, crop_size=max(8, size * 3 // 4))
    reasons.append(f"Images of {size} pixels, crops of {recipe.crop_size}.")
    return recipe, reasons
