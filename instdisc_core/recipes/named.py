"""The recipes that have names."""

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

from instdisc_core.recipes.methods import CENTRAL_SQUARE, METHODS
from instdisc_core.recipes.recipe import Recipe
from instdisc_core.validation import require, require_choice

RecipeName: TypeAlias = Literal[
    "paper-cifar10",
    "lemniscate-cifar10",
    "paper-imagenet",
    "modern-cifar10",
    "small-cifar10",
    "idfd-cifar10",
    "nnclr-imagenet",
    "nnclr-cifar10",
    "pic-imagenet",
    "pic-cifar10",
]

_FLOAT_COLORS = (
    "Pixels are floats between the color changes; the official code rounds them to 8 bits. The "
    "mean difference is 1.4 of 255 levels."
)
_BANK = "The bank starts from normalized Gaussian rows."
_MOVING_Z = "Z follows the bank by a moving average instead of being fixed at the first batch."

_MODERN = Recipe(
    name="modern-cifar10",
    source="paper-cifar10, with later findings",
    deviations=(
        "Crops of 24 pixels: 0.56 of the work; objects are as large as in whole images of 32 "
        "pixels.",
        "Milder color changes, with SimCLR's flip; AdamW; a cosine after a warm-up; bfloat16.",
    ),
    crop_size=24,
    augmentation="simclr",
    augmentation_settings=(("strength", 0.5), ("blur", False), ("scale", (0.2, 1.0))),
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.01,
    warmup_epochs=10,
    milestones=(),
    dtype_policy="mixed_bfloat16",
)

_RECIPES = (
    Recipe(
        name="paper-cifar10",
        source="Wu et al., CVPR 2018, section 4.1 and Table 1, exact softmax",
        deviations=(_FLOAT_COLORS, _BANK),
        augmentation_settings=(("flip", False),),
    ),
    Recipe(
        name="lemniscate-cifar10",
        source="the official code, cifar.py of lemniscate.pytorch: NCE with 4096 negatives",
        deviations=(
            _FLOAT_COLORS,
            _BANK,
            _MOVING_Z,
        ),
        augmentation_settings=(("flip", False),),
        objective="nce",
        objective_settings=(("num_negatives", 4096),),
    ),
    Recipe(
        name="paper-imagenet",
        source="Wu et al., CVPR 2018, section 4.2, ResNet-18; one of its proximal weights",
        deviations=(
            _FLOAT_COLORS,
            _BANK,
            CENTRAL_SQUARE,
            _MOVING_Z,
        ),
        image_size=256,
        crop_size=224,
        stem="imagenet",
        objective="nce",
        temperature=0.07,
        objective_settings=(("num_negatives", 4096), ("proximal_weight", 30.0)),
        batch_size=256,
        weight_decay=1e-4,
        milestones=(120, 160),
        knn_temperature=0.07,
    ),
    _MODERN,
    dataclasses.replace(
        _MODERN,
        name="small-cifar10",
        source="modern-cifar10, for two processor cores and 10,000 images",
        deviations=("A residual network of depth 10 and half the width, on patches of 2 x 2.",),
        depth=10,
        stem="patch",
        width=32,
        epochs=25,
        warmup_epochs=5,
    ),
    Recipe(
        name="idfd-cifar10",
        source="Tao, Takagi and Nakata, ICLR 2021 (IDFD), section 4",
        deviations=(
            _FLOAT_COLORS,
            _BANK,
            "The decorrelation is the mean over the features instead of the sum.",
            "The 80 images that do not fill a batch are left out, others in each epoch: a batch of "
            "fewer images than features cannot be decorrelated.",
        ),
        objective="idfd",
        temperature=1.0,
        objective_settings=(("decorrelation_temperature", 2.0), ("weight", 1.0)),
        epochs=2000,
        drop_remainder=True,
        milestones=(600, 950, 1300, 1650),
    ),
    *METHODS,
)


def names() -> list[RecipeName]:
    """The names of all recipes.

    Example: ``recipes.names()``
    """
    return list(get_args(RecipeName))


def get(name: RecipeName, **changes: Any) -> Recipe:
    """The recipe of this name, with changes.

    Args:
        name: one of ``names()``.
        **changes: attributes of Recipe; each change is added to ``deviations``. With other
            ``epochs`` the warm-up and the milestones change in proportion, unless they are given,
            too.

    Returns:
        A Recipe.

    Raises:
        ValueError: an unknown name or attribute, or a value that a recipe does not take.

    Example: ``recipe = recipes.get("paper-cifar10", epochs=20)``
    """
    found = {recipe.name: recipe for recipe in _RECIPES}
    require_choice("recipe", name, found)
    fields = {field.name for field in dataclasses.fields(Recipe)}
    unknown = sorted(set(changes) - fields)
    require(
        not unknown,
        f"settings {', '.join(unknown)} that a recipe does not have",
        f"some of {', '.join(sorted(fields))}",
    )
    recipe = found[name]
    if "epochs" in changes:
        share = changes["epochs"] / recipe.epochs
        moved = tuple(max(1, round(share * epoch)) for epoch in recipe.milestones)
        changes = {
            "warmup_epochs": round(share * recipe.warmup_epochs),
            "milestones": moved,
            **changes,
        }
    changed = [
        f"{key} is {value!r} instead of {getattr(recipe, key)!r}."
        for key, value in changes.items()
        if value != getattr(recipe, key)
    ]
    deviations = (*recipe.deviations, *changed)
    return dataclasses.replace(recipe, **{"deviations": deviations, **changes})
