"""The recipe for a folder: its rules, its time, and that a run continues with the same recipe."""

import dataclasses

import keras
import numpy as np
import pytest
from image_files import two_classes
from PIL import Image

from instdisc_core import recipes
from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.data import glance as glancing
from instdisc_core.recipes import choosing

FAST = 0.01  # seconds of a step


def photos(folder, count=8, size=(40, 30)):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def of_noise(n, side=32):
    return ImageArray(np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype("uint8"))


def constant(seconds):
    return lambda recipe: seconds


def test_the_training_fits_into_the_time():
    for step in (0.02, 0.3):
        for n in (300, 1000):
            recipe = recipes.for_images(of_noise(n), minutes=3, speed=constant(step))
            epoch = -(-n // recipe.batch_size) * step + choosing.EPOCH_END
            assert 0.8 * 180 < recipe.epochs * epoch <= 180


def test_twice_the_time_is_twice_the_epochs_with_a_warm_up_in_proportion():
    short, long = (
        recipes.for_images(of_noise(500), minutes, speed=constant(0.02)) for minutes in (2, 4)
    )
    assert long.epochs == pytest.approx(2 * short.epochs, abs=1)
    assert long.warmup_epochs == pytest.approx(2 * short.warmup_epochs, abs=1)
    assert 0 < short.warmup_epochs < short.epochs


def test_one_epoch_at_least():
    recipe = recipes.for_images(of_noise(300), minutes=0.001, speed=constant(1.0))
    assert (recipe.epochs, recipe.warmup_epochs) == (1, 0)
    that = "1 epoch takes 3.2 s, longer than the 0.054 s of 0.001"
    assert any(that in reason for reason in recipe.deviations)


def test_it_says_what_it_chose_and_why(capsys):
    recipe = recipes.for_images(of_noise(300), minutes=2, speed=constant(FAST))
    printed = capsys.readouterr().out
    assert "300 images" in printed
    for reason in recipe.deviations:
        assert reason in printed
        assert reason in str(recipe)
    assert any(f"{recipe.epochs} epochs" in reason for reason in recipe.deviations)
    recipes.for_images(of_noise(300), minutes=2, speed=constant(FAST), verbose=False)
    assert not capsys.readouterr().out


@pytest.mark.on_one_backend
def test_the_number_format_is_the_one_that_is_faster_here():
    def speed(seconds_of_float32):
        seconds = {"float32": seconds_of_float32, "mixed_bfloat16": 0.1}
        return lambda recipe: seconds[recipe.dtype_policy]

    exact = recipes.for_images(of_noise(500), minutes=2, speed=speed(0.05))
    assert exact.dtype_policy == "float32"
    assert any("crops of 32 takes 0.05 s here, and 0.1 s" in reason for reason in exact.deviations)
    short = recipes.for_images(of_noise(500), minutes=2, speed=speed(0.2))
    assert short.dtype_policy == "mixed_bfloat16"
    assert not any("float32" in reason for reason in short.deviations)
    assert exact.epochs > short.epochs


@pytest.mark.on_one_backend
def test_a_slow_number_format_is_measured_at_the_smallest_size_alone(tmp_path):
    """Emulated bfloat16 can be ten times slower: a larger size is measured in float32 at once."""
    measured = []

    def speed(recipe):
        measured.append((recipe.image_size, recipe.dtype_policy))
        return {"float32": 0.01, "mixed_bfloat16": 1.0}[recipe.dtype_policy]

    recipe = recipes.for_images(photos(tmp_path / "photos", 3, (100, 100)), speed=speed)
    assert measured == [(32, "mixed_bfloat16"), (32, "float32"), (64, "float32")]
    assert (recipe.image_size, recipe.dtype_policy) == (64, "float32")


@pytest.mark.on_one_backend
def test_a_run_that_was_begun_is_for_its_own_minutes(tmp_path):
    recipe = recipes.for_images(of_noise(300), 2, speed=constant(FAST))
    recipes.claim(tmp_path, recipe, 0, of_noise(300).manifest)
    for minutes in (None, 2, 2.0):
        assert recipes.for_images(of_noise(300), minutes, tmp_path) == recipe
    for minutes in (1, 12, 22):
        with pytest.raises(ValueError, match=f"minutes={minutes}, and .* which holds a run of"):
            recipes.for_images(of_noise(300), minutes, tmp_path)


def test_few_images_are_named():
    few, many = (
        recipes.for_images(of_noise(n), speed=constant(FAST)).deviations[-1] for n in (50, 500)
    )
    assert "50 images are few" in few
    assert "few" not in many


def test_a_folder_is_counted_and_measured_without_reading_it_whole(tmp_path):
    folder = photos(tmp_path / "photos", 9)
    (folder / "broken.jpg").write_bytes(b"not an image")
    recipe = recipes.for_images(folder, speed=constant(FAST))
    assert "10 images of about 30 pixels" in recipe.source


@pytest.mark.on_one_backend
@pytest.mark.parametrize("count", [5, 64, 65, 127, 128])
def test_no_more_than_some_files_are_read(tmp_path, monkeypatch, count):
    def counted(path, max_bytes):
        read.append(path.name)
        return contents(path, max_bytes)

    read, contents = [], glancing.contents
    monkeypatch.setattr(glancing, "contents", counted)
    monkeypatch.setattr(glancing, "LOOKED_AT", 64)
    found = glancing.glance(photos(tmp_path / "photos", count, (4, 3)))
    assert (found.images, found.side) == (count, 3)
    assert len(set(read)) == min(count, 64)
    assert len(read) <= 2 * 64, "some for their size, and all for their pixels"
    assert found.pixels.shape == (min(count, 64), 32, 32, 3)


@pytest.mark.on_one_backend
def test_a_glance_sees_what_the_files_show_in_their_order(tmp_path):
    folder = two_classes(tmp_path / "photos")
    (folder / "a" / "1.png").write_bytes(b"not an image")
    found, source = glancing.glance(folder), ImageFolder(folder, 32, corrupt="skip")
    assert (found.images, found.side) == (13, 16)
    np.testing.assert_array_equal(found.pixels, source.images())
    of_source = glancing.glance(ImageFolder(folder, 64, corrupt="skip"))
    assert (of_source.images, of_source.side) == (12, 64)
    np.testing.assert_array_equal(of_source.pixels, found.pixels)


@pytest.mark.on_one_backend
def test_a_glance_meets_all_parts_of_a_folder_and_of_a_source(tmp_path, monkeypatch):
    """In order, and not in equal steps, which would meet one image of each pair alone."""
    monkeypatch.setattr(glancing, "LOOKED_AT", 20)
    images = np.zeros((200, 32, 32, 3), "uint8")
    images += np.arange(200, dtype="uint8")[:, None, None, None]
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i:03}.png")
    for source in (tmp_path, ImageArray(images)):
        seen = glancing.glance(source).pixels[:, 0, 0, 0]
        np.testing.assert_array_equal(seen // 10, np.arange(20))
        assert len(set(seen % 2)) == 2
        np.testing.assert_array_equal(seen, glancing.glance(source).pixels[:, 0, 0, 0])


@pytest.mark.on_one_backend
def test_a_glance_decodes_no_file_that_may_take_long(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", 3)
    monkeypatch.setattr(glancing, "MAX_BYTES_TO_DECODE", 100)
    found = glancing.glance(folder)
    assert (found.images, found.side, len(found.pixels)) == (3, 30, 0)
    assert recipes.for_images(folder, speed=constant(FAST)).mirrors


@pytest.mark.on_one_backend
@pytest.mark.parametrize(("count", "mirrors"), [(99, True), (100, False), (300, False)])
def test_images_that_differ_from_their_mirror_images_are_not_mirrored(count, mirrors, capsys):
    images = np.random.default_rng(0).integers(0, 100, (count, 32, 32, 3)).astype("uint8")
    images[:, 8:16, 8:16] += 60
    recipe = recipes.for_images(ImageArray(images), speed=constant(FAST))
    assert recipe.mirrors is mirrors
    why = "No mirroring: of a sample, 100% were told from their mirror images."
    assert (why in recipe.deviations, why in capsys.readouterr().out) == (not mirrors, not mirrors)
    settings = dict(recipe.augmentation_settings)
    assert settings.pop("flip", True) is mirrors
    assert settings == dict(recipes.get(choosing.BASE).augmentation_settings)
    images[::2] = images[::2, :, ::-1]
    assert recipes.for_images(ImageArray(images), speed=constant(FAST)).mirrors


@pytest.mark.on_one_backend
@pytest.mark.parametrize(("side", "crop"), [(8, 8), (32, 32), (48, 48), (64, 48), (96, 72)])
def test_a_source_keeps_its_size(side, crop):
    recipe = recipes.for_images(of_noise(300, side), speed=constant(FAST))
    assert (recipe.image_size, recipe.crop_size) == (side, crop)


@pytest.mark.on_one_backend
@pytest.mark.parametrize(
    ("side", "step", "sizes"),
    [(100, 0.02, (64, 48)), (100, 0.2, (32, 32)), (48, 0.02, (32, 32)), (8, 0.02, (32, 32))],
)
def test_large_photos_get_more_pixels_where_the_time_allows(tmp_path, side, step, sizes):
    """At 0.2 s a step, 1,350 steps fit into five minutes, and at 0.02 s ten times as many."""
    folder = photos(tmp_path / "photos", 3, (side + 20, side))
    recipe = recipes.for_images(folder, 5, speed=constant(step))
    assert (recipe.image_size, recipe.crop_size) == sizes
    assert any("64 pixels" in reason for reason in recipe.deviations) == (side == 100)


def test_the_speed_is_that_of_the_recipe_that_is_returned(tmp_path):
    """Steps at 64 pixels are too slow; the epochs are counted with those at 32."""
    folder = photos(tmp_path / "photos", 3, (100, 100))
    times = {64: 10.0, 32: 0.1}
    recipe = recipes.for_images(folder, 1, speed=lambda recipe: times[recipe.image_size])
    assert recipe.epochs == int(54 / (0.1 + choosing.EPOCH_END))


@pytest.mark.on_one_backend
def test_a_run_continues_with_the_recipe_that_it_began_with(tmp_path, capsys):
    """The second measurement finds another speed, and does not matter."""
    source = of_noise(12)
    small = {"width": 16, "epochs": 2, "warmup_epochs": 1, "batch_size": 8}

    def chosen(step):
        recipe = recipes.for_images(source, 0.01, tmp_path / "run", speed=constant(step))
        return recipe if recipe.width == 16 else dataclasses.replace(recipe, **small)

    first = chosen(0.5)
    first.train(source, tmp_path / "run", epochs=1, verbose=0)
    capsys.readouterr()
    again = chosen(0.001)
    assert "was begun" in capsys.readouterr().out
    assert again == first
    again.train(source, tmp_path / "run", verbose=0)
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3


@pytest.mark.on_one_backend
def test_a_step_is_measured_and_nothing_global_changes():
    recipe = recipes.get("small-cifar10", width=16, batch_size=8, dtype_policy="float32")
    policy, state = keras.config.dtype_policy(), np.random.get_state()[1].copy()
    assert 0 < recipes.seconds_per_step(recipe, 20) < 60
    assert keras.config.dtype_policy() == policy
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(("count", "batch_size"), [(300, 128), (50, 50)])
def test_a_step_is_measured_with_a_bank_of_all_images(monkeypatch, count, batch_size):
    """The exact softmax takes longer where there are more."""
    seen = {}

    class Model:
        def train_on_batch(self, images, indices):
            seen["batch"], seen["largest"] = len(images), indices.max()
            assert len(set(indices)) == len(images)

    def build(recipe, num_images):
        seen["rows"] = num_images
        return Model()

    monkeypatch.setattr(recipes.Recipe, "build", build)
    recipes.for_images(of_noise(count), minutes=1)
    assert (seen["rows"], seen["batch"]) == (count, batch_size)
    assert seen["largest"] < count
    recipes.seconds_per_step(recipes.get("small-cifar10", batch_size=4096), 5000)
    assert (seen["rows"], seen["batch"]) == (5000, 4096)
    assert seen["largest"] >= 2000


def test_what_cannot_be_trained_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="minutes"):
        recipes.for_images(of_noise(10), minutes=0)
    with pytest.raises(ValueError, match="at least 2"):
        recipes.for_images(of_noise(1), speed=constant(FAST))
    with pytest.raises(ValueError, match="does not exist"):
        recipes.for_images(tmp_path / "nothing", speed=constant(FAST))
    pixels = np.zeros((4, 8, 16, 3), "uint8")
    with pytest.raises(ValueError, match="square"):
        recipes.for_images(ImageArray(pixels), speed=constant(FAST))


@pytest.mark.on_one_backend
def test_the_recipe_trains_on_the_folder(tmp_path):
    folder = photos(tmp_path / "photos", 9)
    recipe = recipes.for_images(folder, minutes=0.001, speed=constant(1.0))
    recipe = dataclasses.replace(recipe, width=16, batch_size=4, dtype_policy="float32")
    model = recipe.train(ImageFolder(folder, recipe.image_size), verbose=0)
    assert np.isfinite(model.history.history["loss"]).all()
