"""How long a training step of a recipe takes on this machine."""

import statistics
import time

import numpy as np

from instdisc_core.communicator import require_one_device
from instdisc_core.recipes.recipe import Recipe

MEASURED_SECONDS = 4.0  # of training steps, after the first ones, which compile


def seconds_per_step(recipe: Recipe, num_images: int) -> float:
    """The median time of a training step of this recipe on random images, in seconds.

    Args:
        recipe: to measure, for about 4 seconds after the first two steps.
        num_images: to train on. The exact softmax compares with all, and so the time grows with it.

    Raises:
        ValueError: on several ranks.

    Example: ``recipes.seconds_per_step(recipes.get("small-cifar10", width=4), num_images=100)``
    """
    require_one_device("measuring the seconds of a step")
    side, batch_size = recipe.image_size, min(recipe.batch_size, num_images)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, side, side, 3)).astype("uint8")
    indices = rng.choice(num_images, batch_size, replace=False).astype("int32")
    model = recipe.build(num_images)
    for _ in range(2):
        model.train_on_batch(images, indices)
    times: list[float] = []
    while sum(times) < MEASURED_SECONDS and len(times) < 50:
        start = time.perf_counter()
        model.train_on_batch(images, indices)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
