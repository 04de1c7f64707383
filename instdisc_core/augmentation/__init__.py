"""Augmentations of published methods, and the layers that they consist of.

``paper_augmentation`` and ``simclr_augmentation`` take and return pixels in ``[0, 255]``. They
compute in float32 under any dtype policy, and draw for each image separately.
"""

from instdisc_core.augmentation.color_jitter import ColorChanges, ColorJitter
from instdisc_core.augmentation.grayscale import Grayscale
from instdisc_core.augmentation.policies import paper_augmentation, simclr_augmentation
from instdisc_core.augmentation.random_apply import RandomApply
from instdisc_core.augmentation.random_gaussian_blur import RandomGaussianBlur
from instdisc_core.augmentation.random_resized_crop import RandomResizedCrop

__all__ = [
    "ColorChanges",
    "ColorJitter",
    "Grayscale",
    "RandomApply",
    "RandomGaussianBlur",
    "RandomResizedCrop",
    "paper_augmentation",
    "simclr_augmentation",
]
