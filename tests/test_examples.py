"""The trainers in examples/ run to their end, on a few images."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
TRAINERS = {
    "torch": ("train_torch", "train_nnclr_torch", "train_keras"),
    "tensorflow": ("train_tensorflow",),
    "jax": ("train_jax",),
}
BACKEND = keras.backend.backend()
TINY = ("--image-size", "8", "--epochs", "2", "--batch-size", "3", "--embedding-dim", "4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of six images, of which a fifth is held out."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8")).save(path)
    return folder


def test_every_trainer_is_run():
    named = {name for names in TRAINERS.values() for name in names}
    assert named == {path.stem for path in EXAMPLES.glob("train_*.py")}


@pytest.mark.parametrize("name", TRAINERS[BACKEND])
def test_a_trainer_trains_and_reports(name, data, monkeypatch, capsys):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # which an example would set for good
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "common", raising=False)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--data", str(data), *TINY])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert "kNN accuracy on 3 held-out images" in capsys.readouterr().out
