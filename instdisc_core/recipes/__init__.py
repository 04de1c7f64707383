"""Whole trainings by name: every setting, where it comes from, and what differs from there."""

from instdisc_core.recipes.named import get, names
from instdisc_core.recipes.recipe import Recipe

__all__ = ["Recipe", "get", "names"]
