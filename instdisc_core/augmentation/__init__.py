"""What is done to an image before the encoder sees it: the recipes, and the layers they need.

The recipes take and give pixels in ``[0, 255]``. They compute in float32, whatever the encoder
computes in, and draw for each image separately.
"""

from instdisc_core.augmentation.color_jitter import ColorChanges, ColorJitter
from instdisc_core.augmentation.combine import Chain, RandomApply
from instdisc_core.augmentation.grayscale import Grayscale
from instdisc_core.augmentation.policies import paper_augmentation, simclr_augmentation
from instdisc_core.augmentation.random_gaussian_blur import RandomGaussianBlur
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop

__all__ = [
    "Chain",
    "ColorChanges",
    "ColorJitter",
    "Grayscale",
    "RandomApply",
    "RandomGaussianBlur",
    "RandomResizedCrop",
    "paper_augmentation",
    "simclr_augmentation",
]
