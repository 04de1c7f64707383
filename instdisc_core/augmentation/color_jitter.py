"""Random changes of brightness, contrast, saturation and hue."""

from typing import Any, NamedTuple

import keras
import numpy as np
from einops import rearrange
from keras import ops

from instdisc_core.augmentation.grayscale import GRAY_WEIGHTS
from instdisc_core.augmentation.random_layer import RandomLayer, require_images
from instdisc_core.types import Tensor
from instdisc_core.validation import require, require_number

# The share of red, green and blue in a hue is ``clip(slope |hue - center| + offset)``: centers,
# slopes, offsets.
SHARES = np.array([[3, 2, 4], [1, -1, -1], [-1, 2, 2]], "float32")


class ColorChanges(NamedTuple):
    """What a ColorJitter draws for every image of a batch.

    Attributes:
        factors: float32 ``(batch, 3)``, the factors of brightness, contrast and saturation.
        turn: float32 ``(batch,)``, the turn of the hue, as a share of the circle.
        places: int32 ``(batch, 4)``, the places of brightness, contrast, saturation and hue in the
            order of the four changes, from 0 to 3.

    Example: ``factors, turn, places = ColorJitter(0.4, 0.4, 0.4, 0.1).draw(batch=8)``
    """

    factors: Tensor
    turn: Tensor
    places: Tensor


@keras.saving.register_keras_serializable(package="instdisc_core")
class ColorJitter(RandomLayer):
    """Changes brightness, contrast, saturation and hue, each image by its own random amounts.

    With a factor ``f``, uniform in ``[max(0, 1 - amount), 1 + amount]``, and the gray image
    ``gray = 0.299 red + 0.587 green + 0.114 blue``:

        brightness:  x <- clip(f x)
        contrast:    x <- clip(f x + (1 - f) mean(gray))
        saturation:  x <- clip(f x + (1 - f) gray)
        hue:         x <- the same saturation and value, hue + t,  t uniform in [-amount, amount]

    ``clip`` is to ``[0, 1]`` and the mean is over the pixels of the image. Each image has its own
    random order of the four changes.

    The first three are products with one 3 x 3 matrix per image. There are three such products
    before the hue is turned and three after it; where an image's order does not need one, its
    matrix is the identity. So the hue is computed once, whatever the orders.

    Computes in float32 under any dtype policy. Outside training images do not change. Keras's
    ``RandomColorJitter`` adds to brightness instead of multiplying, has a fixed order,
    and computes in the global dtype policy.

    Args:
        brightness, contrast, saturation: largest change of the factor, at least 0.
        hue: largest turn, as a share of the circle, in ``[0, 0.5]``.
        seed: integer in ``[0, 2**31)`` that makes a run repeatable; None draws a fresh one.

    Raises:
        ValueError: an amount out of its range, or images that are not
            ``(batch, height, width, 3)`` of floating-point pixels.

    Source:
        torchvision's ``ColorJitter``, as its documentation and that of ``adjust_brightness``,
        ``adjust_contrast``, ``adjust_saturation`` and ``adjust_hue`` define it. Deviation: on 8-bit
        images torchvision rounds after each change, and pixels are floats here. On 400 crops of
        photos of 32 x 32 pixels, with amounts of 0.4 and the same draws, the mean difference is
        1.4 of 255 levels, and pixels change by 0.5 % more on average.

    Example:
    ```python
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1, seed=0)
    changed = jitter(images / 255, training=True)
    ```
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, amount in amounts.items():
            require_number(name, amount, 0)
        require_number("hue", hue, 0, 0.5, open_above=False)
        super().__init__(seed, **{"dtype": "float32", **kwargs})
        self.amounts = {**amounts, "hue": hue}

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Images ``(batch, height, width, 3)`` in ``[0, 1]``, in training with other colors.

        Args:
            images: floats ``(batch, height, width, 3)``, in ``[0, 1]``.
            training: false changes nothing.
        """
        require_images(images, channels=3)
        dtype = keras.backend.standardize_dtype(images.dtype)
        require(
            keras.backend.is_float_dtype(dtype),
            f"images of dtype {dtype}",
            "floating-point pixels in [0, 1]",
            "Divide pixels in [0, 255] by 255.",
        )
        if not training:
            return images
        changes = self.draw(ops.shape(images)[0])
        blends = _blends(changes)
        x = rearrange(images, "image row column color -> image color (row column)")
        for blend in blends[:3]:
            x = blend(x)
        x = _turn_hue(x, changes.turn[:, None])
        for blend in blends[3:]:
            x = blend(x)
        rows = images.shape[1]
        return rearrange(x, "image color (row column) -> image row column color", row=rows)

    def draw(self, batch: int) -> ColorChanges:
        """Draw the changes of a batch, as ``call`` does."""
        *amounts, hue = self.amounts.values()
        low = np.array([*(max(0, 1 - amount) for amount in amounts), -hue], "float32")
        high = np.array([*(1 + amount for amount in amounts), hue], "float32")
        drawn = self.uniform((batch, 8))
        values = ops.add(ops.multiply(drawn[:, :4], high - low), low)
        places = ops.argsort(drawn[:, 4:], axis=1)  # of four uniforms: a random permutation
        return ColorChanges(values[:, :3], values[:, 3], ops.cast(places, "int32"))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this layer."""
        return {**super().get_config(), **self.amounts}


class _Blend(NamedTuple):
    """``clip(f x + (1 - f) y)`` with ``y`` 0, the gray mean, or the gray pixel of ``x``."""

    of_pixels: Tensor  # (batch, 3, 3)
    of_means: Tensor  # (batch, 3, 3)

    def __call__(self, x: Tensor) -> Tensor:
        means = ops.matmul(self.of_means, ops.mean(x, axis=2, keepdims=True))
        return _clip(ops.matmul(self.of_pixels, x) + means)


def _blends(changes: ColorChanges) -> list[_Blend]:
    """Three steps before the hue is turned and three after it; in each at most one factor."""
    places, hue = changes.places[:, :3], changes.places[:, 3:]
    steps = places + 2 * ops.cast(places > hue, "int32")
    taken = ops.cast(steps[:, None] == ops.arange(6)[:, None], "float32")
    change = taken * (changes.factors - 1)[:, None]  # (batch, 6, 3), f - 1
    gray = ops.broadcast_to(GRAY_WEIGHTS, (3, 3))
    contrast, saturation = change[:, :, 1, None, None], change[:, :, 2, None, None]
    factor = 1 + ops.sum(change, axis=2)[:, :, None, None]
    of_pixels = factor * ops.eye(3) - saturation * gray
    of_means = -contrast * gray
    return [_Blend(of_pixels[:, step], of_means[:, step]) for step in range(6)]


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Colors ``(batch, 3, pixels)`` with their hue turned; minimum and maximum stay the same."""
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    highest = ops.maximum(ops.maximum(red, green), blue)
    lowest = ops.minimum(ops.minimum(red, green), blue)
    chroma = highest - lowest
    scale = 1 / (chroma + 1e-30)  # gray has no hue: any serves
    hue = ops.where(  # in sixths of the circle: red is at 0, green at 2, blue at 4
        highest == red,
        (green - blue) * scale,
        ops.where(highest == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    hue = hue + 6 * turn
    hue = hue - 6 * ops.floor(hue / 6)
    shares = ops.convert_to_tensor(SHARES)[:, :, None]
    share = _clip(ops.abs(hue[:, None] - shares[0]) * shares[1] + shares[2])
    return lowest[:, None] + chroma[:, None] * share


def _clip(x: Tensor) -> Tensor:
    """To ``[0, 1]``; numbers as bounds would be copied to the device each time."""
    return ops.clip(x, ops.zeros(()), ops.ones(()))
