"""The benchmark of collections: its split, what it stores, and that it computes nothing twice."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="the benchmark describes images by scikit-image's HOG")

sys.path.append(str(Path(__file__).parent.parent))  # last: what is tested is what is installed

from benchmarks import clusters, few_labels, folders, glance, harness, sets
from instdisc_core import recipes
from instdisc_core.data import ImageFolder

EACH = 10  # images of a class


@pytest.fixture
def collection(tmp_path):
    """Bright and dark images."""
    rng = np.random.default_rng(0)
    for name, least in (("bright", 128), ("dark", 0)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = rng.integers(least, least + 128, (40, 36, 3)).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{name}{i}.png")
    return tmp_path / "set"


def names(folder):
    return {path.name for path in folder.rglob("*.png")}


def test_a_fifth_of_each_class_is_held_out_and_choosing_sees_none_of_it(collection, tmp_path):
    train, test = folders.parts(collection, tmp_path)
    assert len(names(test / "dark")) == len(names(test / "bright")) == EACH // 5
    assert names(train) | names(test) == names(collection)
    assert not names(train) & names(test)
    chosen_on, chosen_by = folders.parts(collection, tmp_path, choose=True)
    assert names(chosen_on) | names(chosen_by) == names(train)
    assert not names(chosen_on) & names(chosen_by)
    other = folders.parts(collection, tmp_path / "again")
    assert [names(part) for part in other] == [names(train), names(test)]


def test_sets_are_made_of_their_sources(tmp_path):
    for part, name in (("train", "red"), ("val", "red"), ("test", "red"), ("test", "green")):
        (tmp_path / "shop" / part / name).mkdir(parents=True)
        Image.new("RGB", (300, 200), name).save(tmp_path / "shop" / part / name / "0.jpg")
    Image.new("RGB", (40, 30)).save(tmp_path / "shop" / "train" / "red" / "1.png")
    (tmp_path / "shop" / "classes.csv").write_text(
        "Class Name (str),Coarse Class Name (str)\nred,fruit\ngreen,fruit\n"
    )
    sets.grocery(tmp_path / "shop", tmp_path)
    made = tmp_path / "grocery"
    assert {str(path.relative_to(made)) for path in made.rglob("*.*")} == {
        "train/fruit/train-0.jpg", "train/fruit/train-1.png", "train/fruit/val-0.jpg",
        "test/fruit/test-0.jpg",
    }  # fmt: skip
    with Image.open(made / "train/fruit/train-0.jpg") as reduced:
        assert reduced.size == (128, 85)
    turned = Image.Exif()
    turned[0x0112] = 6  # of EXIF: to be turned by 90 degrees
    (tmp_path / "hands" / "0").mkdir(parents=True)
    Image.new("RGB", (300, 200)).save(tmp_path / "hands" / "0" / "a.JPG", exif=turned)
    Image.new("RGB", (300, 200)).save(tmp_path / "hands" / "0" / "a.png")
    sets.by_class("signs", tmp_path / "hands", tmp_path)
    sizes = {}
    for path in (tmp_path / "signs" / "0").iterdir():
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == {"a.JPG": (85, 128), "a.png.jpg": (128, 85)}
    small = made / "train/fruit/train-1.png"
    assert small.read_bytes() == (tmp_path / "shop/train/red/1.png").read_bytes()


@pytest.mark.on_one_backend
def test_images_with_a_side_are_told_and_one_row_mirrors_them_all_the_same(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for i in range(120):
        pixels = rng.integers(0, 100, (32, 32, 3)).astype("uint8")
        pixels[8:16, 8:16] += 60
        Image.fromarray(pixels).save(tmp_path / "set" / f"{i:03}.png")
    found = glance.measured(tmp_path / "set")
    assert found["images"] == 120
    assert np.isnan(found["sides"].pop("of bursts")), "too few are different"
    assert set(found["sides"].values()) == {1.0}
    assert 0 < found["colors"]["between images"] < 0.1, "noise"
    assert found["colors"]["with shapes"] == 1, "their colors hardly differ"
    (tmp_path / "seconds.json").write_text(
        json.dumps({f"for-images, 32 pixels, {kind}": 1 for kind in ("float32", "mixed_bfloat16")})
    )
    own, mirrored, recolored = (
        folders.recipe_for(
            folders.OWN + change, tmp_path / "set", 120, 1, tmp_path / "seconds.json"
        )
        for change in ("", "-mirrored", "-recolored")
    )
    assert (own.mirrors, mirrored.mirrors) == (False, True)
    assert mirrored == own.with_augmentation(flip=True)
    changed = {"strength": 0.5, "grayscale": 0.2}
    assert dict(recolored.augmentation_settings) == dict(own.augmentation_settings) | changed
    assert not recolored.mirrors


def test_a_set_with_a_split_keeps_it(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    found = folders.parts(tmp_path / "set", tmp_path)
    assert found == (tmp_path / "set" / "train", tmp_path / "set" / "test")


@pytest.mark.on_one_backend
def test_rows_are_measured_once(collection, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    measured = []
    monkeypatch.setattr(
        folders.recipes, "seconds_per_step", lambda recipe, count: measured.append(count) or 1.0
    )
    rows = ["pixels", "whitened", "hog", "untrained", "for-images"]
    flags = ["--sets", collection, "--rows", *rows, "--seeds", 0, "--minutes", 0.001]
    flags += ["--work", tmp_path / "work"]
    monkeypatch.setattr(sys, "argv", ["folders", *(str(flag) for flag in flags)])
    planned = [*sys.argv, "--rows", "untrained", "for-images", "--plan"]
    with monkeypatch.context() as plan:
        plan.setattr(sys, "argv", planned)
        folders.main()
    assert measured == [16, 16], "in two number formats"
    assert not list(tmp_path.glob("results/*/*.json"))
    folders.main()
    assert measured == [16, 16], "the plan is kept"
    stored = {path.name: path.read_text() for path in tmp_path.glob("results/*/*.json")}
    assert set(stored) == {f"set-{row}-seed0.json" for row in rows}
    for row in rows:
        result = json.loads(stored[f"set-{row}-seed0.json"])
        assert result["images"] == {"train": 16, "test": 4}
        learned = row in ("untrained", "for-images")
        kinds = ["embedding", "encoder", "whitened"] if learned else ["embedding"]
        assert list(result["scores"]) == kinds
        assert all(0 <= x <= 1 for kind in kinds for x in result["scores"][kind].values())
        if row == "pixels":
            assert result["scores"]["embedding"]["knn"] == 1.0, "brightness tells them apart"
        if row == "for-images":
            assert result["recipe"]["epochs"] == 1
            assert list(result["verdict"]) == ["pixels", "untrained encoder", "embedding"]
    capsys.readouterr()
    folders.main()
    assert capsys.readouterr().out.count("already stored") == len(rows)
    again = {path.name: path.read_text() for path in tmp_path.glob("results/*/*.json")}
    assert again == stored
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--minutes", "0.002", "--rows", "untrained"])
    with pytest.raises(SystemExit, match="other minutes or other images"):
        folders.main()


def test_sets_of_the_same_name_share_nothing(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    other = tmp_path / "other" / "set"
    shutil.copytree(collection, other)
    (other / "dark" / "dark0.png").write_bytes((other / "bright" / "bright0.png").read_bytes())
    one, two = (folders.parts(folder, tmp_path / "work") for folder in (collection, other))
    assert not set(one) & set(two)
    flags = ["--rows", "pixels", "--seeds", "0", "--work", str(tmp_path / "work"), "--sets"]
    monkeypatch.setattr(sys, "argv", ["folders", *flags, str(collection), str(other)])
    with pytest.raises(SystemExit, match="other minutes or other images"):
        folders.main()


@pytest.mark.on_one_backend
def test_few_labels_from_each_start_and_clusters_of_a_training(
    collection, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    train, _ = folders.parts(collection, tmp_path / "work")
    recipe = recipes.get("small-cifar10", width=4, dtype_policy="float32", epochs=1, batch_size=8)
    recipe.train(ImageFolder(train, 32), tmp_path / "run", verbose=0, judge=False)
    flags = ["--set", collection, "--trained", f"here={tmp_path / 'run'}", "--steps", 3]
    flags += ["--fractions", 0.5, 1, "--rates", 0.01, "--work", tmp_path / "work"]
    given = ["few_labels", *(str(flag) for flag in flags)]
    monkeypatch.setattr(sys, "argv", given)
    few_labels.main()
    stored = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("results/*/*")}
    assert set(stored) == {f"set-{start}-rate0.01-seed0.json" for start in ("here", "from-scratch")}
    for result in stored.values():
        assert list(result["accuracies"]) == ["0.5", "1.0"]
        assert result["images"] == {"train": 16, "test": 4}
    flags = ["--sets", collection, "--trained", tmp_path / "run", "--work", tmp_path / "work"]
    monkeypatch.setattr(sys, "argv", ["clusters", *(str(flag) for flag in flags)])
    clusters.main()
    (path,) = tmp_path.glob("results/clusters-*.json")
    for ways in json.loads(path.read_text())["sets"]["set"]["scores"].values():
        assert set(ways) == {"means", "neighbors"}
    monkeypatch.setattr(sys, "argv", given)
    monkeypatch.setattr(few_labels, "measured", None)
    capsys.readouterr()
    few_labels.main()
    assert "from scratch" in capsys.readouterr().out
    for changed, others in ((["--steps", "4"], "steps"), (["--fractions", "1"], "fractions")):
        monkeypatch.setattr(sys, "argv", [*given, *changed])
        with pytest.raises(SystemExit, match=rf"has other {others}: move it away"):
            few_labels.main()


def test_fewer_labels_are_seen_more_often(collection, tmp_path, monkeypatch):
    train, _ = folders.parts(collection, tmp_path)
    source = ImageFolder(train, 32)
    monkeypatch.setattr(few_labels, "BATCH", 4)
    passes = [few_labels.epochs(source, share, 12, seed=0) for share in (0.25, 0.5, 1)]
    assert passes == [12, 6, 3], "4, 8 and 16 images in batches of 4"
