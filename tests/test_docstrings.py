"""Every example of a docstring runs, with the names that CONTRIBUTING.md lists."""

import ast
import inspect
import re
import textwrap
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import instdisc_core
from instdisc_core import (
    InstanceDiscrimination,
    MemoryBank,
    augmentation,
    callbacks,
    data,
    encoders,
    evaluation,
    frozen_encoder,
    gradients,
    heads,
    health,
    negative_sampler,
    objectives,
    partition,
    pretrained,
    recipes,
)

ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(
    r"^Examples?:[ \n]*(?:```python\n(.*?)```|``(.+?)``)", re.DOTALL | re.MULTILINE
)
N, SIDE, DIM = 40, 32, 128


def docstrings(path):
    """Name and docstring of the classes and functions of a file, those of a class too."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            yield node.name, ast.get_docstring(node)


def examples():
    for folder in ("instdisc_core", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            framework = re.match(r"instdisc_(torch|tensorflow|jax)", path.parent.name)
            if framework and framework[1] != keras.backend.backend():
                continue
            for name, docstring in docstrings(path):
                for block, line in EXAMPLE.findall(docstring):
                    where = f"{path.relative_to(ROOT).with_suffix('')}:{name}"
                    yield pytest.param(textwrap.dedent(block or line), id=where)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where examples run: next to a folder of photos."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    for i in range(N):
        for name in ("photos", "test"):
            path = folder / name / "abcd"[i % 4] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), "uint8")).save(path)
    return folder


@cache
def public_names():
    modules = (objectives, partition, negative_sampler, gradients, augmentation, encoders, data)
    modules += (health, evaluation, callbacks, heads, pretrained, frozen_encoder)
    names = {"np": np, "keras": keras, "recipes": recipes, "instdisc_core": instdisc_core}
    for module in (*modules, instdisc_core):
        names |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return names


@pytest.fixture
def names(folder, monkeypatch):
    """What every example may use; listed in CONTRIBUTING.md."""
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, SIDE, SIDE, 3), "uint8")
    labels = np.arange(N) % 4
    layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten(), keras.layers.Dense(8)]
    encoder = keras.Sequential(layers)
    model = InstanceDiscrimination(encoder, N, DIM, "non_parametric_softmax", seed=0)
    model.compile(optimizer="sgd", run_eagerly=True)
    bank = MemoryBank(N, DIM, seed=1)
    embeddings = keras.ops.convert_to_numpy(bank.rows)
    source = data.ImageArray(images, labels)
    return public_names() | {
        "images": images,
        "indices": np.arange(N, dtype="int32"),
        "labels": labels,
        "photos": source,
        "train": source,
        "test": data.ImageArray(images[::-1].copy(), labels),
        "encoder": encoder,
        "model": model,
        "bank": bank,
        "embeddings": embeddings,
        "features": embeddings,
    }


@pytest.mark.parametrize("example", list(examples()))
def test_examples_run(example, names):
    exec(compile(example, "<example>", "exec"), names)


def test_public_classes_and_functions_have_examples():
    """Of the top level; and the pattern above finds what stands under the word Example."""
    for name in instdisc_core.__all__:
        text = inspect.getdoc(getattr(instdisc_core, name))
        assert len(EXAMPLE.findall(text)) == len(re.findall(r"^Example", text, re.MULTILINE)) > 0, (
            name
        )
