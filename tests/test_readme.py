"""The Python of the README and of the documents runs as a reader would run it.

A block whose first line is a comment with a file name begins a script of that name; a block without
one continues the script above it. Each script runs in a process of its own, in a folder that holds
images and what the scripts before it have written, and imports nothing but what the page shows.
"""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from processors import computes_in_bfloat16
from reader import ONE_EPOCH, PHOTOS, Reader

from instdisc_core.recipes import choosing

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
METHODS = (ROOT / "docs" / "methods.md").read_text()

EPOCHS = 12  # of the README's first script here
# The pages say the same to every backend, and other tests train, save and load on each.
whole_page = pytest.mark.on_one_backend


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


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    return Reader(tmp_path_factory.mktemp("readme"), scripts(README))


@pytest.fixture(scope="module")
def trained(readme):
    """What the first script prints, which the others need to have run."""
    seconds = 60 * choosing.USED / (EPOCHS + 0.5) - choosing.EPOCH_END  # of the step of an epoch
    speed = f"speed=lambda recipe: {seconds}"
    return readme.run("train.py", ("minutes=10", f"minutes=1, {speed}"))


@computes_in_bfloat16
def test_the_readme_s_model_is_trained_and_searched_in_another_process(readme, trained):
    assert f"recipe for {PHOTOS} images" in trained
    query, neighbors = ast.literal_eval(trained.splitlines()[-1])
    assert query == "0.jpg"
    assert len(set(neighbors) - {query}) == 5
    assert readme.wrote("photos.csv", "neighbors.html", "model.keras", "run/model.keras")
    log = np.genfromtxt(readme.folder / "run/log.csv", delimiter=",", names=True)
    assert len(log) == EPOCHS
    assert log["loss"][-6:].mean() < log["loss"][0] - 0.5
    found = ast.literal_eval(readme.run("search.py").splitlines()[-1])
    assert [query for query, _ in found] == [f"{PHOTOS}.jpg", f"{PHOTOS + 1}.jpg"]
    assert all(len(set(names)) == 5 for _, names in found)
    assert {name for _, names in found for name in names} <= set(readme.names("photos"))


@whole_page
@pytest.mark.usefixtures("trained")
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
def test_the_methods(tmp_path):
    methods = Reader(tmp_path, scripts(METHODS))
    assert re.search(r"\[[012 ]+\]", methods.run("idfd.py"))
    neighbors = methods.run("nnclr.py").splitlines()[-1]
    assert len(ast.literal_eval(neighbors)[1]) == 3
    neighbors = methods.run("pic.py").splitlines()[-1]
    assert len(ast.literal_eval(neighbors)[1]) == 3
    methods.run("loop.py")


def test_the_pages_hold_these_scripts_and_no_others():
    assert list(scripts(README)) == [
        "train.py",
        "search.py",
        "find.py",
        "by_recipe.py",
        "loop.py",
    ]
    assert list(scripts(METHODS)) == ["idfd.py", "nnclr.py", "loop.py", "pic.py"]


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
