"""What the random layers share: a generator, its seed, and the checks of their arguments."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from instdisc_core.types import Tensor
from instdisc_core.validation import is_integer, require, require_number

Shape = tuple[int | None, ...]
SEEDS = 2**31  # each backend can hold integers below it


class RandomLayer(keras.layers.Layer):
    """A layer with a random generator of its own.

    The seed is part of the configuration: a layer that is rebuilt from its configuration draws the
    same numbers as a new one.

    Args:
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: a seed out of its range.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(
            seed is None or (is_integer(seed) and 0 <= seed < SEEDS),
            f"seed={seed!r}",
            "an integer in [0, 2**31), or None",
        )
        self.seed = None if seed is None else int(seed)
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def uniform(self, shape: tuple, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw float32 numbers, uniform in ``[low, high)``."""
        return keras.random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        """The shape of the images."""
        return images_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), "seed": self.seed}


def require_range(name: str, bounds: Sequence[float], highest: float = np.inf) -> None:
    """Raise unless ``bounds`` is a pair of numbers in ``(0, highest]``, the smaller one first."""
    require(
        isinstance(bounds, (tuple, list)) and len(bounds) == 2,
        f"{name}={bounds!r}",
        "a pair of numbers, the smallest and the largest",
    )
    for bound in bounds:
        require_number(name, bound, 0, highest, open_below=True, open_above=highest == np.inf)
    require(bounds[0] <= bounds[1], f"{name}={bounds!r}", "the smaller number first")


def require_images(images: Tensor, channels: int | None = None) -> None:
    """Raise unless ``images`` is ``(batch, height, width, channels)``."""
    require(
        len(images.shape) == 4 and channels in (None, images.shape[-1]),
        f"images of shape {tuple(images.shape)}",
        f"(batch, height, width, {channels or 'channels'})",
    )
