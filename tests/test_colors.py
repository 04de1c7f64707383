"""Whether the colors of images say what they show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core import recipes
from instdisc_core.data import ImageArray
from instdisc_core.recipes import choosing, color_agreement, color_variation, colors
from instdisc_core.recipes.colors import (
    MIN_AGREEMENT,
    MIN_VARIATION,
    color_features,
    lift,
    nearest,
    shape_features,
)
from instdisc_core.recipes.glimpses import different

pytestmark = pytest.mark.on_one_backend

KINDS = 8


def stripes(n, telling, seed=0, side=32):
    """Stripes of eight slopes in eight colors, on noise.

    The color is that of the slope in a share of the images, and any in the others.
    """
    rng = np.random.default_rng(seed)
    slope = rng.integers(0, KINDS, n)
    color = np.where(rng.random(n) < telling, slope, rng.integers(0, KINDS, n))
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
    assert color_agreement(stripes(400, telling=True, seed=seed)) > 1.5 * MIN_AGREEMENT
    assert 0.7 < color_agreement(stripes(400, telling=False, seed=seed)) < 0.9 * MIN_AGREEMENT


@pytest.mark.parametrize(("share", "low", "high"), [(0.3, 1.2, 2.1), (0.6, 2.1, 4)])
def test_the_limit_is_at_twice_by_chance(share, low, high):
    """Means over four seeds; 1.7 and 3.4 here."""
    found = np.mean([color_agreement(stripes(400, share, seed)) for seed in range(4)])
    assert low < found < high
    assert MIN_AGREEMENT == 2.1


def test_how_often_neighbors_are_both_is_counted():
    first = np.eye(9, k=1, dtype=bool) | np.eye(9, k=-8, dtype=bool)
    assert lift(first, first) == 8
    assert lift(first, first.T) == 0
    every = ~np.eye(9, dtype=bool)
    assert lift(first, every) == lift(every, every) == 1


def test_images_without_color_agree_as_by_chance():
    gray = stripes(300, telling=True).mean(axis=-1, keepdims=True)
    assert color_agreement(gray) == 1
    assert color_agreement(gray.repeat(3, axis=-1)) == 1
    tinted = gray + np.random.default_rng(0).integers(-6, 7, (300, 1, 1, 3))
    assert color_variation(tinted) > 0.9
    assert color_agreement(tinted) == 1
    faint = gray + np.random.default_rng(0).integers(-2, 3, (300, 32, 32, 3))  # as JPEG leaves
    assert color_agreement(faint) == 1


def with_less_variation(images):
    """Red and green pixels in each image, on half of its tint."""
    rng = np.random.default_rng(0)
    gray, tint = images.mean(axis=-1, keepdims=True), images.mean(axis=(1, 2), keepdims=True)
    side = np.where(rng.random((len(images), 32, 32, 1)) < 0.5, 1, -1)
    found = 0.6 * gray + 60 + 0.5 * (tint - tint.mean(axis=-1, keepdims=True)) + side * [50, -50, 0]
    return np.clip(found, 0, 255).astype("uint8")


def test_the_light_of_images_of_the_same_colors_does_not_tell(monkeypatch):
    """The share is between those of the hands and of the photos that the limit tells apart."""
    images = with_less_variation(stripes(400, telling=True))
    assert 0.1 < color_variation(images) < MIN_VARIATION == 0.25
    assert color_agreement(images) == 1
    monkeypatch.setattr(colors, "MIN_VARIATION", 0.1)
    assert color_agreement(images) > MIN_AGREEMENT


def test_what_all_images_have_at_one_place_does_not_count():
    images = stripes(400, telling=True)
    framed = images.copy()
    framed[:, :3] = framed[:, -3:] = [200, 20, 20]
    framed[:, 20:26, 20:30] = [20, 20, 200]
    assert color_variation(framed) > 0.9 * color_variation(images) * 20 / 32
    assert color_agreement(framed) > MIN_AGREEMENT


def test_photos_of_one_scene_do_not_agree_with_each_other():
    rng = np.random.default_rng(0)
    bursts = np.repeat(stripes(300, telling=False), 4, axis=0)
    bursts = np.clip(bursts + rng.integers(-6, 7, bursts.shape), 0, 255)
    assert color_agreement(rng.permutation(bursts)) < MIN_AGREEMENT


def shades(n):
    """Stripes that are all different: each has a pattern of its own."""
    pattern = np.random.default_rng(1).integers(0, 120, (n, 8, 8, 1))
    images = stripes(n, telling=True) // 2 + pattern.repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(images, 0, 255).astype("uint8")


def test_few_images_do_not_say():
    assert len(different(shades(200))) == 200
    assert color_agreement(shades(200)) > MIN_AGREEMENT
    assert np.isnan(color_agreement(shades(199)))
    assert np.isnan(color_agreement(shades(199)[:0]))
    assert np.isnan(color_agreement(np.repeat(shades(100), 4, axis=0)))
    assert color_agreement(shades(99).mean(axis=-1, keepdims=True)) == 1
    assert color_agreement(shades(1)) == 1


def test_blue_is_not_yellow_and_brightness_no_color():
    blue, yellow = np.zeros((2, 32, 32, 3)) + 100, np.zeros((2, 32, 32, 3)) + 100
    blue[..., 2], yellow[..., 2] = 200, 0
    rows = color_features(np.concatenate([blue, yellow]))
    assert rows[0] @ rows[2] < -0.9
    assert not color_features(np.arange(0, 250, 50).repeat(3072).reshape(5, 32, 32, 3)).any()
    with_alpha = np.concatenate([blue, yellow])
    with_alpha = np.concatenate([with_alpha, with_alpha[..., :1]], axis=-1)
    np.testing.assert_array_equal(color_features(with_alpha), rows)


def test_edges_have_a_place():
    images = np.zeros((2, 32, 32, 1))
    images[0, 8:16, 4:12] = images[1, 8:16, 20:28] = 200
    rows = shape_features(images)
    assert rows[0] @ rows[1] < -0.5 * np.linalg.norm(rows[0]) ** 2


@given(st.integers(0, 2**32 - 1))
def test_colors_have_no_place_and_shapes_no_color(seed):
    images = np.random.default_rng(seed).integers(0, 256, (3, 32, 32, 3))
    mirrored = images[:, :, ::-1]
    np.testing.assert_array_equal(color_features(images), color_features(mirrored))
    assert not np.allclose(shape_features(images), shape_features(mirrored), atol=0.1)
    exchanged = images[..., [1, 2, 0]]
    np.testing.assert_allclose(shape_features(exchanged), shape_features(images), atol=1e-3)
    assert not np.allclose(color_features(exchanged), color_features(images), atol=0.1)


@pytest.mark.parametrize(("n", "count"), [(200, 5), (250, 5), (350, 7)])
def test_the_nearest_are_two_percent_of_the_others(n, count):
    rows = np.random.default_rng(0).normal(size=(n, 5))
    found = nearest(rows)
    assert (found.sum(axis=1) == count).all()
    assert not found.diagonal().any()
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    farthest = np.where(found, similarity, np.inf).min(axis=1)
    assert (np.where(found, -np.inf, similarity).max(axis=1) <= farthest).all()


@pytest.mark.parametrize("shape", [(300, 32, 32), (300, 32, 40, 3), (0,), (300, 0, 0, 3)])
@pytest.mark.parametrize("measure", [color_agreement, color_variation])
def test_images_of_another_shape_are_an_error(shape, measure):
    with pytest.raises(ValueError, match="multiples of 16"):
        measure(np.zeros(shape))


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
    said = [reason for reason in recipe.deviations if "Small changes of color" in reason]
    assert len(said) == (why is not None)
    assert (why or "") in "".join(said)
    assert ("Small changes of color" in capsys.readouterr().out) is bool(why)
    recipe.build(count)
