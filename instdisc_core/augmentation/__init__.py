"""What is done to an image before the encoder sees it: the recipes, and the layers they need.

The recipes take and give pixels in ``[0, 255]``, compute in float32 whatever the encoder computes
in, and draw for every image anew. They are made of Keras's layers, but for the crop and for the
choice of images that a layer is applied to, which Keras lacks.
"""

from instdisc_core.augmentation.combine import Chain, RandomApply
from instdisc_core.augmentation.policies import (
    color_jitter,
    paper_augmentation,
    simclr_augmentation,
)
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop

__all__ = [
    "Chain",
    "RandomApply",
    "RandomResizedCrop",
    "color_jitter",
    "paper_augmentation",
    "simclr_augmentation",
]
