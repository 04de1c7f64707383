"""Whether the colors of images say what they show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core import recipes
from instdisc_core.data import ImageArray
from instdisc_core.recipes import choosing, color_agreement, color_variation
from instdisc_core.recipes.colors import (
    TELLING,
    VARIED,
    color_features,
    nearest,
    shape_features,
)

pytestmark = pytest.mark.on_one_backend

KINDS = 8


def stripes(n, telling, seed=0, side=32):
    """Stripes of eight slopes in eight colors; each slope has its color, or any, on noise."""
    rng = np.random.default_rng(seed)
    slope = rng.integers(0, KINDS, n)
    color = slope if telling else rng.integers(0, KINDS, n)
    y, x = np.mgrid[:side, :side]
    angle = np.pi * (slope + rng.uniform(-0.4, 0.4, n)) / KINDS
    across = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    on = (across + rng.uniform(0, 8, n)[:, None, None]) % 8 < 4
    turn = 2 * np.pi * color[:, None] / KINDS + 2 * np.pi * np.arange(3) / 3
    tint = rng.uniform(0.5, 1, (n, 1)) * 80 * np.cos(turn)
    images = 60 * on[..., None] + 70 + tint[:, None, None] + rng.integers(0, 30, (n, side, side, 1))
    return np.clip(images, 0, 255).astype("uint8")


@pytest.mark.parametrize("seed", range(3))
def test_colors_that_go_with_shapes_tell_and_others_do_not(seed):
    assert color_agreement(stripes(400, telling=True, seed=seed)) > 1.5 * TELLING
    assert 0.7 < color_agreement(stripes(400, telling=False, seed=seed)) < 0.9 * TELLING


def test_images_without_color_agree_as_by_chance():
    gray = stripes(300, telling=True).mean(axis=-1, keepdims=True)
    assert color_agreement(gray) == 1
    assert color_agreement(gray.repeat(3, axis=-1)) == 1
    faint = gray + np.random.default_rng(0).integers(-2, 3, (300, 32, 32, 3))  # as JPEG leaves
    assert color_agreement(faint) == 1


def test_the_light_of_images_of_the_same_colors_does_not_tell():
    """A red square on green stripes, all a little tinted: each slope has its tint."""
    images = stripes(400, telling=True).astype(float)
    tint = images.mean(axis=(1, 2), keepdims=True) - images.mean()
    same = images - tint + 0.1 * tint + [-60, 60, 0]
    same[:, 8:24, 8:24] += [120, -120, 0]
    assert color_variation(np.clip(same, 0, 255)) < VARIED < color_variation(images)
    assert color_agreement(np.clip(same, 0, 255)) == 1


def test_photos_of_one_scene_do_not_agree_with_each_other():
    rng = np.random.default_rng(0)
    bursts = np.repeat(stripes(300, telling=False), 4, axis=0)
    bursts = np.clip(bursts + rng.integers(-6, 7, bursts.shape), 0, 255)
    assert color_agreement(rng.permutation(bursts)) < TELLING


def test_few_images_do_not_say():
    assert np.isnan(color_agreement(stripes(99, telling=True)))
    assert np.isnan(color_agreement(stripes(99, telling=True)[:0]))
    assert np.isnan(color_agreement(np.repeat(stripes(50, telling=True), 4, axis=0)))
    assert color_agreement(stripes(99, telling=True).mean(axis=-1, keepdims=True)) == 1
    assert color_agreement(stripes(1, telling=True)) == 1


@given(st.integers(0, 2**32 - 1))
def test_colors_have_no_place_and_shapes_no_color(seed):
    images = np.random.default_rng(seed).integers(0, 256, (3, 32, 32, 3))
    mirrored = images[:, :, ::-1]
    np.testing.assert_array_equal(color_features(images), color_features(mirrored))
    assert not np.allclose(shape_features(images), shape_features(mirrored), atol=0.1)
    exchanged = images[..., [1, 2, 0]]
    np.testing.assert_allclose(shape_features(exchanged), shape_features(images), atol=1e-3)
    assert not np.allclose(color_features(exchanged), color_features(images), atol=0.1)


def test_the_nearest_are_two_percent_of_the_others():
    rows = np.random.default_rng(0).normal(size=(200, 5))
    found = nearest(rows)
    assert (found.sum(axis=1) == 4).all()
    assert not found.diagonal().any()
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    farthest = np.where(found, similarity, np.inf).min(axis=1)
    assert (np.where(found, -np.inf, similarity).max(axis=1) <= farthest).all()


@pytest.mark.parametrize("shape", [(300, 32, 32), (300, 32, 40, 3), (0,)])
def test_images_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        color_agreement(np.zeros(shape))


@pytest.mark.parametrize(
    ("telling", "count", "why"),
    [
        (True, 400, "of like colors have like shapes"),
        (True, 99, "too few images are different"),
        (False, 400, None),
    ],
)
def test_the_recipe_keeps_colors_that_tell_and_says_so(telling, count, why, capsys):
    recipe = recipes.for_images(ImageArray(stripes(count, telling)), speed=lambda recipe: 0.01)
    usual = dict(recipes.get(choosing.BASE).augmentation_settings)
    settings = dict(recipe.augmentation_settings)
    settings.pop("flip", None)
    assert settings == (usual | {"strength": 0.12, "grayscale": 0.0} if why else usual)
    said = [reason for reason in recipe.deviations if "Colors are changed little" in reason]
    assert len(said) == (why is not None)
    assert (why or "") in "".join(said)
    assert ("Colors are changed little" in capsys.readouterr().out) is bool(why)
    recipe.build(count)
