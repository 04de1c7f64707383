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
from models import runs_eagerly
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
    index,
    negative_sampler,
    objectives,
    partition,
    pretrained,
    recipes,
)
from instdisc_core.testing.strategies import unit_rows

# Packages without code for a framework: they join what the others have. Their examples show how
# they are called, and other tests run them on each framework. Of other files the first example runs
# on each.
JOINING = (
    "callbacks",
    "checkpoints",
    "data",
    "encoders",
    "evaluation",
    "exports",
    "heads",
    "page",
    "recipes",
    "server",
    "testing",
)
ROOT = Path(__file__).parent.parent
EXAMPLE = re.compile(
    r"^Examples?:[ \n]*(?:```python\n(.*?)```|``(.+?)``)", re.DOTALL | re.MULTILINE
)
N, SIDE, DIM = 40, 32, 128


def docstrings(path):
    """Name and docstring of a file, and of its classes and functions, those of a class too."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        is_documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if is_documented and ast.get_docstring(node):
            yield getattr(node, "name", path.stem), ast.get_docstring(node)


def examples():
    for folder in ("instdisc_core", "backends"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            framework = re.match(r"instdisc_(torch|tensorflow|jax)", path.parent.name)
            if framework and framework[1] != keras.backend.backend():
                continue
            place = path.relative_to(ROOT).with_suffix("")
            marks = [pytest.mark.on_one_backend] if place.parts[1] in JOINING else []
            for name, docstring in docstrings(path):
                for block, line in EXAMPLE.findall(docstring):
                    code = textwrap.dedent(block or line)
                    yield pytest.param(code, id=f"{place}:{name}", marks=marks)
                    marks = [] if framework else [pytest.mark.on_one_backend]


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
    modules += (health, evaluation, callbacks, heads, index, pretrained, frozen_encoder)
    names = {"np": np, "keras": keras, "recipes": recipes, "instdisc_core": instdisc_core}
    for module in (*modules, instdisc_core):
        names |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
    return names


class Names(dict):
    """What every example may use; listed in CONTRIBUTING.md. A model is built where it is named."""

    def __init__(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (N, SIDE, SIDE, 3), "uint8")
        labels = np.arange(N) % 4
        source = data.ImageArray(images, labels)
        embeddings = unit_rows(np.random.default_rng(1), N, DIM)
        super().__init__(public_names())
        self.update(
            images=images,
            indices=np.arange(N, dtype="int32"),
            labels=labels,
            photos=source,
            train=source,
            test=data.ImageArray(images[::-1].copy(), labels),
            embeddings=embeddings,
            features=embeddings,
        )
        self.builders = {"encoder": self.encoder, "model": self.model, "bank": self.bank}
        for name in self.builders:  # which modules may have too
            self.pop(name, None)

    def __missing__(self, name):
        if name not in self.builders:
            raise KeyError(name)
        self[name] = self.builders[name]()
        return self[name]

    def encoder(self):
        layers = [keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Flatten()]
        return keras.Sequential([*layers, keras.layers.Dense(8)])

    def model(self):
        model = InstanceDiscrimination(self.encoder(), N, DIM, "non_parametric_softmax", seed=0)
        model.compile(optimizer="sgd", run_eagerly=runs_eagerly())
        return model

    def bank(self):
        bank = MemoryBank(N, DIM)
        bank.rows.assign(self["embeddings"])
        return bank


@pytest.mark.parametrize("example", list(examples()))
def test_examples_run(example, folder, monkeypatch):
    """One that raises fails; what examples compute is held by the tests of their subjects."""
    monkeypatch.chdir(folder)
    exec(compile(example, "<example>", "exec"), Names())


@pytest.mark.framework_independent
def test_all_code_in_docstrings_is_in_examples():
    """Code elsewhere would not run."""
    paths = [path for f in ("instdisc_core", "backends") for path in (ROOT / f).rglob("*.py")]
    texts = [(path, text) for path in paths for _, text in docstrings(path)]
    assert sum(text.count("```python") for _, text in texts) > 50
    for path, text in texts:
        assert text.count("```") == 2 * sum(bool(block) for block, _ in EXAMPLE.findall(text)), path


def test_public_classes_and_functions_have_examples():
    """Of the top level; and the pattern above finds what stands under the word Example."""
    for name in instdisc_core.__all__:
        text = inspect.getdoc(getattr(instdisc_core, name))
        assert len(EXAMPLE.findall(text)) == len(re.findall(r"^Example", text, re.MULTILINE)) > 0, (
            name
        )
