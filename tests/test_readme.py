"""The README's Python runs as it stands, on a folder of small photos."""

import ast
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Nine photos, and training and test images of two classes, in the working directory."""
    rng = np.random.default_rng(0)
    folders = ["photos"] * 9 + [f"{split}/{c}" for split in ("train", "test") for c in "ab"] * 4
    for number, folder in enumerate(folders):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 30, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / folder / f"{number}.jpg")
    monkeypatch.chdir(tmp_path)


def test_its_python_runs(photos, capsys):
    namespace: dict = {}
    for block in BLOCKS:
        needs = re.match(r"# (torch|tensorflow|jax)\n", block)
        if needs and needs[1] != keras.backend.backend():
            continue
        exec(compile(block.replace("epochs=200", "epochs=1"), "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    names = next(line for line in printed.splitlines() if line.startswith("('"))
    query, neighbours = ast.literal_eval(names)
    assert query == "0.jpg"
    assert len(set(neighbours) - {query}) == 5
    assert "recipe small-cifar10" in printed
    assert re.search(r"^kNN +bank rows +0\.\d{3} +k=8", printed, flags=re.M)
    written = ["model.keras", "neighbours.html", "photos.csv", "runs/photos/recipe.json"]
    assert [Path(name).exists() for name in [*written, "report/map.png"]] == [True] * 5


def test_the_files_that_it_points_to_exist():
    targets = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert len(targets) > 15
    for target in targets:
        assert (Path(__file__).parent.parent / target.partition("#")[0]).exists(), target


def test_the_functions_of_the_equation_table_exist():
    import instdisc_core

    rows = re.findall(r"\[`([A-Z]\w+)\.(\w+)`\]\(([^)]+)\)", README)
    assert len(rows) >= 8
    for owner, method, _ in rows:
        thing = getattr(instdisc_core, owner)
        assert method in vars(thing), f"{owner}.{method}"
