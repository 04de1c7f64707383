"""Whole trainings by name: every setting, where it comes from, and what differs from there."""

from instdisc_core.recipes.choosing import for_images, in_time
from instdisc_core.recipes.colors import color_agreement, color_variation
from instdisc_core.recipes.handedness import told_from_mirror
from instdisc_core.recipes.named import RecipeName, get, names
from instdisc_core.recipes.recipe import Recipe
from instdisc_core.recipes.run_folder import claim
from instdisc_core.recipes.speed import seconds_per_step

__all__ = [
    "Recipe",
    "RecipeName",
    "claim",
    "color_agreement",
    "color_variation",
    "for_images",
    "get",
    "in_time",
    "names",
    "seconds_per_step",
    "told_from_mirror",
]
