"""The README's Python runs as it stands, on a folder of small photos."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image", reason="the README's own-images block reads files")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in range(9):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype="uint8")
        image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)


def test_its_python_runs(photos, capsys):
    namespace: dict = {}
    ran = 0
    for block in BLOCKS:
        needs = re.match(r"# (torch|tensorflow|jax)\n", block)
        if needs and needs[1] != keras.backend.backend():
            continue
        exec(compile(block.replace("epochs=200", "epochs=1"), "README.md", "exec"), namespace)
        ran += 1
    assert ran >= 1
    assert len(re.findall(r"^photos/\d\.jpg$", capsys.readouterr().out, flags=re.M)) == 5
    assert Path("model.keras").exists()


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
