"""Backends are found without being loaded, and each failure has its own error."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import keras
import numpy as np
import pytest
from differentiation import numpy

import instdisc_core
from instdisc_core import (
    BankOps,
    MemoryBank,
    NonParametricSoftmax,
    available_backends,
    get_bank_ops,
    keras_backend,
    registry,
)

ACTIVE = keras.backend.backend()
FRAMEWORKS = ("torch", "tensorflow", "jax")
OTHER = {"torch": "jax", "jax": "torch", "tensorflow": "torch"}[ACTIVE]


class Loopback(BankOps):
    """The reference, under a name of its own, counting the calls."""

    calls = 0

    def attend(self, features, bank, temperature):
        type(self).calls += 1
        return super().attend(features, bank, temperature)


class ForAnother(BankOps):
    keras_backend = OTHER


@pytest.fixture
def entry(monkeypatch):
    """Register entry points for the time of a test."""

    def register(**values):
        points = {k: EntryPoint(k, v, registry.GROUP) for k, v in values.items()}
        monkeypatch.setattr(registry, "available_backends", lambda: points)

    return register


def test_the_three_are_known_by_the_names_that_keras_uses():
    assert {"torch", "tensorflow", "jax"} <= set(available_backends())


def test_the_active_one_is_the_default_and_the_reference_can_be_asked_for():
    assert get_bank_ops().keras_backend == ACTIVE
    assert get_bank_ops(ACTIVE) is get_bank_ops()
    assert type(get_bank_ops("keras")) is BankOps


def test_a_third_party_s_backend_is_used_where_it_is_asked_for(entry):
    entry(loopback="test_registry:Loopback")
    bank = MemoryBank(5, 3, seed=0, backend="loopback")
    before = sys.modules["test_registry"].Loopback.calls
    NonParametricSoftmax()(numpy(bank.rows)[:2].astype("float32"), np.arange(2), bank)
    assert sys.modules["test_registry"].Loopback.calls == before + 1
    assert isinstance(get_bank_ops(Loopback()), Loopback)


def test_where_none_is_registered_the_reference_serves(entry):
    entry()
    assert type(get_bank_ops()) is BankOps


def test_an_unknown_name():
    with pytest.raises(ValueError, match=r"backend='mxnet'.*'jax', 'keras', 'tensorflow', 'torch'"):
        get_bank_ops("mxnet")


def test_a_framework_that_is_not_installed(entry):
    entry(caffe="no_such_module:Ops")
    with pytest.raises(ImportError, match=r"backend='caffe'.*pip install 'instdisc-core\[caffe\]'"):
        MemoryBank(5, 3, backend="caffe")


def test_a_backend_of_another_framework(entry):
    entry(other="test_registry:ForAnother")
    with pytest.raises(RuntimeError, match=rf"Keras runs on '{ACTIVE}'.*KERAS_BACKEND={OTHER}"):
        MemoryBank(5, 3, backend="other")


@pytest.fixture
def start(tmp_path):
    """Runs code in a Python with these frameworks and no other package, and returns what it says.

    In place of Keras stands a package that says which backend it would take, and fails.
    """

    def run(*frameworks, code="import instdisc_core", keras_json=None, **environment):
        path = tmp_path / "packages"
        shutil.copytree(Path(instdisc_core.__file__).parent, path / "instdisc_core")
        for name in ("keras", *frameworks):
            (path / name).mkdir()
            (path / name / "__init__.py").touch()
        (path / "keras" / "__init__.py").write_text(
            "import os, keras.src\n"
            "raise ValueError(f'keras would take {os.environ.get(\"KERAS_BACKEND\")}')"
        )
        (path / "keras" / "src.py").touch()
        if keras_json is not None:
            (tmp_path / "keras.json").write_text(keras_json)
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],  # -S: no packages but those on the path
            env={"PYTHONPATH": str(path), "KERAS_HOME": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr.splitlines()[-1].split(": ", 1)[1]

    return run


@pytest.mark.framework_independent
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_only_framework_that_is_installed_is_chosen(start, framework):
    assert start(framework) == f"keras would take {framework}"


@pytest.mark.framework_independent
@pytest.mark.parametrize("keras_json", ["{}", "[", "[]", '{"backend": "jax"}', '{"backend": "x"}'])
def test_a_configuration_that_cannot_serve_is_passed_over(start, keras_json):
    said = start("torch", code="import instdisc_core.data", keras_json=keras_json)
    assert said == "keras would take torch"


@pytest.mark.framework_independent
@pytest.mark.parametrize(
    ("frameworks", "keras_json"),
    [
        (("tensorflow",), None),
        (("torch", "tensorflow", "jax"), None),
        (("torch", "tensorflow"), '{"floatx": "float32"}'),
        (("torch", "jax"), '{"backend": "jax"}'),
        (("torch",), '{"backend": "numpy"}'),
    ],
)
def test_what_keras_would_take_by_itself_stands_where_it_is_installed(
    start, frameworks, keras_json
):
    assert start(*frameworks, keras_json=keras_json) == "keras would take None"


@pytest.mark.framework_independent
@pytest.mark.parametrize("asked", ["jax", "numpy", ""])
def test_the_choice_of_the_environment_stands(start, asked):
    said = start("torch", "tensorflow", "jax", KERAS_BACKEND=asked)
    assert said == f"keras would take {asked}"


@pytest.mark.framework_independent
def test_a_folder_without_code_is_no_framework(start):
    code = "import os, sys; os.mkdir(sys.path[1] + '/torch'); import instdisc_core"
    assert start("jax", code=code) == "keras would take jax"


@pytest.mark.framework_independent
@pytest.mark.parametrize(
    ("frameworks", "keras_json", "asked", "sentences"),
    [
        (
            (),
            None,
            "",
            "Received: none of torch, tensorflow, jax is installed. Expected one of them. "
            "Install one: pip install torch, or pip install tensorflow, or pip install jax.",
        ),
        (
            ("torch", "jax"),
            None,
            "",
            "Received: no KERAS_BACKEND, while torch and jax are installed and tensorflow, which "
            "Keras would take, is not. Expected KERAS_BACKEND to name one. "
            "Set KERAS_BACKEND=torch or KERAS_BACKEND=jax in the environment.",
        ),
        (
            ("torch", "tensorflow"),
            '{"backend": "jax"}',
            "",
            "Received: no KERAS_BACKEND, while torch and tensorflow are installed and jax, which "
            "Keras would take, is not. Expected KERAS_BACKEND to name one. "
            "Set KERAS_BACKEND=torch or KERAS_BACKEND=tensorflow in the environment.",
        ),
        (
            ("jax",),
            None,
            "torch",
            "Received: KERAS_BACKEND='torch', but torch is not installed. Expected an installed "
            "framework. Install it: pip install torch, or set KERAS_BACKEND=jax in the "
            "environment.",
        ),
        (
            (),
            None,
            "torch",
            "Received: KERAS_BACKEND='torch', but torch is not installed. Expected an installed "
            "framework. Install it: pip install torch.",
        ),
        *(
            (
                ("jax",),
                None,
                asked,
                f"Received: KERAS_BACKEND='{asked}'. Expected one of 'torch', 'tensorflow', "
                f"'jax'. Set KERAS_BACKEND={meant} in the environment.",
            )
            for asked, meant in [
                ("pytorch", "torch"),
                ("PyTorch", "torch"),
                ("Torch", "torch"),
                ("tf", "tensorflow"),
                ("TensorFlow", "tensorflow"),
                ("JAX", "jax"),
                ("mxnet", "jax"),
            ]
        ),
    ],
)
def test_where_no_framework_can_be_chosen_one_line_says_what_to_do(
    start, frameworks, keras_json, asked, sentences
):
    assert start(*frameworks, keras_json=keras_json, KERAS_BACKEND=asked) == sentences


@pytest.mark.framework_independent
@pytest.mark.parametrize("asked", ["", "torch"])
def test_after_a_failed_import_of_keras_python_must_start_again(start, asked):
    code = "try: import keras\nexcept ValueError: pass\nimport instdisc_core"
    said = start("torch", code=code, KERAS_BACKEND=asked)
    assert "earlier import of keras in this process, which failed" in said
    assert said.endswith("Start Python again with KERAS_BACKEND=torch in the environment.")


@pytest.mark.framework_independent
def test_a_wrong_name_is_told_after_a_failed_import_of_keras_too(start):
    code = "try: import keras\nexcept ValueError: pass\nimport instdisc_core"
    assert "KERAS_BACKEND='pytorch'" in start("torch", code=code, KERAS_BACKEND="pytorch")


def test_once_keras_runs_nothing_is_chosen(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    keras_backend.choose()
    assert "KERAS_BACKEND" not in os.environ
    monkeypatch.setenv("KERAS_BACKEND", "no backend")
    keras_backend.choose()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a process says that finds no framework but the active one, and does not name it."""
    code = f"""
import json, sys
from importlib.machinery import PathFinder
from importlib.metadata import entry_points

class WithoutTheOthers(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in {set(FRAMEWORKS) - {ACTIVE}}:
            return super().find_spec(name, path, target)

def loaded():
    return sorted({{name.split(".")[0] for name in sys.modules}})

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTheOthers
said = {{"names": [point.name for point in entry_points(group="instdisc_core.backends")]}}
said["loaded by discovery"] = loaded()
import instdisc_core, keras
said["available"] = list(instdisc_core.available_backends())
said["loaded by import"] = loaded()
said["backend"] = keras.backend.backend()
print(json.dumps(said))
"""
    folder = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "KERAS_HOME": str(folder), "KERAS_BACKEND": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_keras_runs_on_the_only_framework_that_is_installed(alone):
    assert alone["backend"] == ACTIVE


def test_discovery_imports_no_framework(alone):
    assert set(FRAMEWORKS) <= set(alone["names"])
    assert not set(FRAMEWORKS) & set(alone["loaded by discovery"])
    assert set(FRAMEWORKS) <= set(alone["available"])
    found = {name for name in alone["loaded by import"] if name.startswith("instdisc_")}
    assert found == {"instdisc_core"}
