"""The Python of the README and of the documents runs as a reader would run it.

A block whose first line is a comment with a file name begins a script of that name; a block without
one continues the script above it. Each script runs in a process of its own, in a folder that holds
images and what the scripts before it have written, and imports nothing but what the page shows.
"""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
METHODS = (ROOT / "docs" / "methods.md").read_text()
NEAR_DUPLICATES = (ROOT / "docs" / "near_duplicates.md").read_text()
PHOTOS = 12
ONE_EPOCH = ('"small-cifar10"', '"small-cifar10", epochs=1')

# The pages say the same to every backend, and other tests train, save and load on each.
whole_page = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="one backend runs the whole pages"
)


def scripts(page):
    """The scripts of a page, by name, in the order of the page."""
    found: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        named = re.match(r"# (\w+\.py)\b", block)
        if named:
            assert named[1] not in found, f"two scripts are called {named[1]}"
            found[named[1]] = block
        else:
            found[list(found)[-1]] += block
    return found


class Reader:
    """Somebody with a folder of images, who runs the scripts of a page one after the other."""

    def __init__(self, folder, page):
        self.folder, self.scripts = folder, scripts(page)
        rng = np.random.default_rng(0)
        folders = ["photos"] * PHOTOS + ["new"] * 2
        folders += [f"{split}/{c}" for split in ("train", "test") for c in "ab"] * 4
        for number, name in enumerate(folders):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 30, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")

    def run(self, name, *changes):
        """What a script prints, with parts of its text replaced."""
        text = self.scripts[name]
        for old, new in changes:
            assert old in text, f"{name} no longer says {old}"
            text = text.replace(old, new)
        (self.folder / name).write_text(text)
        done = subprocess.run(
            [sys.executable, name],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,  # seconds: they take up to a minute
        )
        assert done.returncode == 0, f"{name}:\n{done.stderr[-3000:]}"
        return done.stdout

    def names(self, folder):
        """The names of the images in a folder."""
        return [path.name for path in (self.folder / folder).iterdir()]

    def wrote(self, *names):
        """Whether a script left these files."""
        return all((self.folder / name).exists() for name in names)


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("readme"), README)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("tutorial"), TUTORIAL)


def test_the_readme_s_model_is_trained_and_searched_in_another_process(readme):
    printed = readme.run("train.py", ("minutes=10", "minutes=0.01"))
    assert f"recipe for {PHOTOS} images" in printed
    query, neighbors = ast.literal_eval(printed.splitlines()[-1])
    assert query == "0.jpg"
    assert len(set(neighbors) - {query}) == 5
    assert readme.wrote("photos.csv", "neighbors.html", "model.keras", "run/model.keras")
    found = ast.literal_eval(readme.run("search.py").splitlines()[-1])
    assert [query for query, _ in found] == [f"{PHOTOS}.jpg", f"{PHOTOS + 1}.jpg"]
    assert all(len(set(names)) == 5 for _, names in found)
    assert {name for _, names in found for name in names} <= set(readme.names("photos"))


@whole_page
def test_the_readme_s_index(readme):
    pytest.importorskip("safetensors", reason="what an index is saved in")
    printed = readme.run("find.py").splitlines()
    assert len(set(ast.literal_eval(printed[-1]))) == 5
    assert {"odd", "to label first"} <= {line.partition(":")[0] for line in printed}
    assert readme.wrote("found/index.json")


@whole_page
def test_the_readme_s_recipe_and_report(readme):
    printed = readme.run("by_recipe.py", ONE_EPOCH, ("epochs=20", "epochs=1"))
    assert "recipe small-cifar10" in printed
    assert re.search(r"^kNN +bank rows +0\.\d{3} +k=8", printed, flags=re.M)
    assert readme.wrote("runs/photos/recipe.json", "report/tsne.png")


@whole_page
def test_the_readme_s_training_loop(readme):
    shown = "    print(losses.mean().item())\n    bank.update("
    printed = readme.run("loop.py", ("    bank.update(", shown)).splitlines()
    losses = np.array(printed[-2:], "float64")  # of two batches: 8 images and the rest
    assert np.all(np.isfinite(losses))
    assert np.all(losses > 0)


@whole_page
def test_the_tutorial(tutorial):
    tutorial.run("train.py", ONE_EPOCH)
    assert tutorial.wrote("photos.csv", "found/log.png", "found/neighbors.html", "found/tsne.png")
    printed = tutorial.run("search.py", ('"report"', '"report", measures=["knn"]'))
    found = ast.literal_eval(next(x for x in printed.splitlines() if x.startswith("[")))
    assert [query for query, _ in found] == [f"{PHOTOS}.jpg", f"{PHOTOS + 1}.jpg"]
    assert tutorial.wrote("train.csv", "report/report.txt")


@whole_page
def test_the_tutorial_s_file_of_weights(tutorial):
    network = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, pooling="avg"
    )
    network.save_weights(tutorial.folder / "mobilenet.weights.h5")
    named = ('"mobilenet.h5"', '"mobilenet.weights.h5"')
    printed = tutorial.run("pretrained.py", named, ONE_EPOCH)
    assert printed.count("found among 12") == 2
    assert tutorial.wrote("adapted/model.keras", "adapted/verdict.txt")


@whole_page
def test_the_methods(tmp_path):
    methods = Reader(tmp_path, METHODS)
    assert re.search(r"\[[012 ]+\]", methods.run("idfd.py"))
    neighbors = methods.run("nnclr.py").splitlines()[-1]
    assert len(ast.literal_eval(neighbors)[1]) == 3
    neighbors = methods.run("pic.py").splitlines()[-1]
    assert len(ast.literal_eval(neighbors)[1]) == 3
    methods.run("loop.py")


@whole_page
def test_the_page_on_near_duplicates(tmp_path):
    pytest.importorskip("safetensors", reason="what an index is saved in")
    page = Reader(tmp_path, NEAR_DUPLICATES)
    page.run("duplicates.py", ONE_EPOCH)
    assert page.run("read.py").split() == [f"({PHOTOS},", "256)"]


def test_the_pages_hold_these_scripts_and_no_others():
    assert list(scripts(README)) == [
        "train.py",
        "search.py",
        "find.py",
        "by_recipe.py",
        "loop.py",
    ]
    assert list(scripts(TUTORIAL)) == ["train.py", "search.py", "pretrained.py"]
    assert list(scripts(METHODS)) == ["idfd.py", "nnclr.py", "loop.py", "pic.py"]
    assert list(scripts(NEAR_DUPLICATES)) == ["duplicates.py", "read.py"]


def test_the_files_that_it_points_to_exist():
    targets = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert len(targets) > 15
    for target in targets:
        assert (ROOT / target.partition("#")[0]).exists(), target


def test_the_functions_of_the_equation_table_exist():
    rows = re.findall(r"\[`([A-Z]\w+)\.(\w+)`\]\(([^)]+)\)", README)
    assert len(rows) >= 8
    for owner, method, path in rows:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        thing = getattr(module, owner)
        assert method in vars(thing), f"{owner}.{method}"
