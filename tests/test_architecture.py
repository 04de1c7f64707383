"""Who may import whom, and what an import does."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import keras
import pytest

from instdisc_core.exports.export import NEEDS

reads = pytest.mark.on_one_backend  # sources, which are the same on each
ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "tensorflow", "jax"}
EXTRAS = {"sklearn", "matplotlib", "scipy", "hypothesis", "pytest", "PIL", "tqdm", "tensorboardX"}
EXTRAS |= {"cykooz_resizer", "simplejpeg", "click", "safetensors", "pyarrow", "faiss"}
EXTRAS |= {"starlette", "uvicorn"}
# Modules that look at results, and may use an extra inside a function, when they are asked to.
WITH_EXTRAS = {
    "data": {"PIL", "cykooz_resizer", "simplejpeg"},
    "page": {"PIL"},
    "evaluation": {"sklearn", "scipy", "matplotlib", "PIL"},
    "callbacks": {"matplotlib", "tensorboardX"},
    "index": {"scipy", "safetensors"},
    "exports": {"faiss", "pyarrow"},
    "server": {"starlette", "uvicorn"},
    "command_line": {"click"},
}
# Floors of the house: a module imports from floors below its own, or from its own package.
FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            "types",
            "validation files alias_tables gradients host_calls keras_backend "
            "normalization quantized_rows sums two_stage_search",
            "communicator sharded_rows native_layers",
            "bank_ops data layouts host_rows",
            "registry negative_sampler partition checkpoints devices",
            "streamed_bank_ops",
            "host_storage",
            "row_storage",
            "embedding_table persistent_model",
            "memory_bank support_set class_weights",
            "objectives augmentation encoders heads",
            "fitting network_libraries",
            "training_model pretrained",
            "ranked_model",
            "embedding_model",
            "instance_model frozen_encoder",
            "model nnclr pic",
            "page",
            "health evaluation",
            "callbacks index",
            "exports recipes testing server",
            "command_line",
        )
    )
    for name in names.split()
}


def imports(path):
    """The absolute names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module == "instdisc_core" else [node.module]


def modules(folder):
    return sorted((ROOT / folder).rglob("*.py"))


@reads
@pytest.mark.parametrize("path", modules("instdisc_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_keras_numpy_einops_and_downwards(path):
    relative = path.relative_to(ROOT / "instdisc_core")
    own = relative.parts[0].removesuffix(".py")
    allowed = set(sys.stdlib_module_names) | {"keras", "numpy", "einops", "filelock"}
    allowed.add("instdisc_core")
    if own == "testing":
        allowed.add("hypothesis")
    allowed |= WITH_EXTRAS.get(own, set())
    for name in imports(path):
        assert name.split(".")[0] in allowed, f"{path} imports {name}"
        if name.startswith("instdisc_core.") and own != "__init__":
            below = name.split(".")[1]
            assert FLOORS[below] < FLOORS[own] or below == own, f"{path} imports upwards: {name}"


def test_the_floors_are_those_of_the_modules_and_of_the_table():
    """Of the table in CONTRIBUTING.md, which lists them from the top."""
    found = {path.stem for path in (ROOT / "instdisc_core").glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in (ROOT / "instdisc_core").glob("*/__init__.py")}
    assert set(FLOORS) == found
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("| floor | modules |")[2].partition("\n\n")[0]
    listed = re.findall(r"`(\w+)(?:/|\.py)`", table)
    assert sorted(listed) == sorted(FLOORS)


@reads
@pytest.mark.parametrize("folder", ["instdisc_core", "backends"])
def test_no_modules_import_each_other_in_a_circle(folder):
    root = ROOT if folder == "instdisc_core" else ROOT / folder
    paths = {}
    for path in modules(folder):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if path.stem == "__init__" else parts)] = path
    imported = {}
    for name, path in paths.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        sources = [(n.module, f"{n.module}.{alias.name}") for n in nodes for alias in n.names]
        found = {inner if inner in paths else outer for outer, inner in sources}
        imported[name] = found & set(paths)
    assert any(imported.values())
    TopologicalSorter(imported).prepare()  # raises a CycleError that names them


@reads
@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_a_backend_imports_its_framework_and_the_core_s_public_names_and_types(framework):
    allowed = {"keras", "numpy", "instdisc_core", framework, f"instdisc_{framework}"}
    if framework == "torch":  # triton comes with PyTorch for GPUs; the others are extras
        allowed |= {"triton", "torchvision", "timm", "safetensors", "onnxruntime", "numpy"}
    if framework == "tensorflow":
        allowed |= {"ai_edge_litert", "numpy"}
    allowed |= set(sys.stdlib_module_names)
    for path in modules(f"backends/instdisc_{framework}"):
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path} imports {name}"
            if name.startswith("instdisc_core."):
                public = {*__import__("instdisc_core").__all__, "types"}
                assert name.split(".")[1] in public, name


@reads
def test_nothing_imports_the_tests_the_benchmarks_or_the_examples():
    examples = {path.stem for path in modules("examples")}
    tests = {path.stem for path in modules("tests")}
    assert "common" in examples
    assert {"conftest", "differentiation"} <= tests
    outside = {"tests", "benchmarks", "docs"} | tests
    for folder in ("instdisc_core", "backends", "examples", "benchmarks"):
        own = {"benchmarks"} if folder == "benchmarks" else set()
        forbidden = outside - own if folder == "examples" else (outside | examples) - own
        assert modules(folder), f"{folder} holds no modules"
        for path in modules(folder):
            found = {name.split(".")[0] for name in imports(path)} & forbidden
            assert not found, f"{path} imports {found}"


def not_public(module, name):
    """Why users cannot rely on a name of a module of this project, or None if they can.

    The names in ``__all__`` of a package are public. So are those of a module at the top level, or
    of a module in the ``__all__`` of its package, unless they begin with an underscore.
    """
    if any(part.startswith("_") for part in (*module.split("."), name)):
        return "an underscore says that it is private"
    own = importlib.import_module(module)
    if hasattr(own, "__path__"):
        top = module == "instdisc_core" and name in FLOORS
        return None if top or name in own.__all__ else f"not in {module}.__all__"
    package, _, stem = module.rpartition(".")
    if package == "instdisc_core" or stem in importlib.import_module(package).__all__:
        return None
    return f"{module} is not in {package}.__all__"


@reads
@pytest.mark.parametrize(
    "path",
    [*modules("examples"), *modules("benchmarks")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_examples_and_benchmarks_use_the_public_api_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            for name in [alias.name for alias in node.names]:
                if node.module.split(".")[0] == "instdisc_core":
                    why = not_public(node.module, name)
                    assert why is None, f"{path} imports {name} from {node.module}: {why}"
                else:
                    assert not name.startswith("_"), f"{path} imports {name} from {node.module}"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not [n for n in names if n.startswith("instdisc_core.")], f"{path}: {names}"


@pytest.mark.parametrize(
    ("module", "name", "is_public"),
    [
        ("instdisc_core", "MemoryBank", True),
        ("instdisc_core", "data", True),
        ("instdisc_core", "_data", False),
        ("instdisc_core.data", "ImageFolder", True),
        ("instdisc_core.data", "folder", False),
        ("instdisc_core.data.folder", "ImageFolder", False),
        ("instdisc_core.gradients", "attach_gradient", True),
        ("instdisc_core.files", "_name", False),
        ("instdisc_core.testing.strategies", "unit_rows", True),
    ],
)
def test_what_is_public(module, name, is_public):
    assert (not_public(module, name) is None) == is_public


@reads
@pytest.mark.parametrize("path", modules("instdisc_core"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_of_the_core_is_short(path):
    assert len(path.read_text().splitlines()) <= 250


def words_to_avoid():
    """The right-hand column of the list in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    start = [left for left, _ in rows].index("write")
    return [word for _, right in rows[start + 1 :] for word in right.split(", ")]


@reads
def test_plain_words():
    """Words that mean one thing are searched for; others, such as "lies", need a reader."""
    ambiguous = {"an image", "lies", "goes on"}
    words = [word for word in words_to_avoid() if word not in ambiguous]
    assert {"neighbour", "refuse", "mend"} <= set(words)
    stems = "|".join(word.removesuffix("e") for word in words)  # "colour_of" has one, too
    pattern = re.compile(rf"(?<![a-z])({stems})(e?s|e?d|ing|e|er)?(?![a-z])", re.IGNORECASE)
    texts = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    for folder in ("instdisc_core", "backends", "examples", "benchmarks", "docs", "tests"):
        texts += modules(folder)
    texts.remove(Path(__file__))
    found = {str(path.relative_to(ROOT)): pattern.search(path.read_text()) for path in texts}
    assert not {path: match[0] for path, match in found.items() if match}


def packages():
    return [
        ".".join(path.parent.relative_to(root).parts)
        for root in (ROOT, ROOT / "backends")
        for path in root.glob("instdisc_*/**/__init__.py")
    ]


@pytest.mark.parametrize("name", sorted(packages()))
def test_all_lists_every_public_name_of_a_package_sorted(name):
    framework = name.removeprefix("instdisc_")
    if framework in FRAMEWORKS - {keras.backend.backend()}:
        pytest.skip("of another framework")
    if name == "instdisc_core.server":
        pytest.importorskip("starlette", reason="an extra")
    package = importlib.import_module(name)
    defined_here = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_") and not inspect.ismodule(value)
        if f"{getattr(value, '__module__', name)}.".startswith(f"{name}.")
    }
    assert defined_here <= set(package.__all__)
    assert package.__all__ == sorted(package.__all__, key=_constants_classes_functions)
    for key in package.__all__:
        thing = getattr(package, key)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, f"{name}.{key} has no docstring"


def _constants_classes_functions(name):
    """Ruff's order of ``__all__``."""
    return not name.isupper(), not name[0].isupper(), name


def registered(path):
    """The names of a file's classes that Keras can load from a saved model."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for decorator in map(ast.unparse, node.decorator_list):
                if "register_keras_serializable" in decorator:
                    assert "package='instdisc_core'" in decorator, f"{path}: {decorator}"
                    yield f"instdisc_core>{node.name}"


@pytest.fixture(scope="module")
def imported():
    """What ``import instdisc_core`` does in a process of its own, after Keras is imported."""
    code = """
import json, logging, sys, warnings
import keras, numpy as np

def state():
    return (logging.getLogger().handlers[:], logging.getLogger().level, warnings.filters[:],
            np.random.get_state()[1].tolist(), keras.config.floatx())

before, loaded = state(), set(sys.modules)
import instdisc_core
print(json.dumps({"unchanged": before == state(),
                  "loaded": sorted(set(sys.modules) - loaded),
                  "serializable": sorted(keras.saving.get_custom_objects())}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_core_changes_nothing_global(imported):
    assert imported["unchanged"]


def test_importing_the_core_loads_no_extra_and_nothing_that_only_looks_at_results(imported):
    loaded = set(imported["loaded"])
    assert "instdisc_core.model" in loaded
    assert not {name.split(".")[0] for name in loaded} & EXTRAS
    above_the_model = {f"instdisc_core.{n}" for n, f in FLOORS.items() if f > FLOORS["model"]}
    assert {"instdisc_core.evaluation", "instdisc_core.callbacks"} < above_the_model
    assert not {".".join(name.split(".")[:2]) for name in loaded} & above_the_model


def test_importing_the_core_is_enough_to_load_a_saved_model(imported):
    names = {name for path in modules("instdisc_core") for name in registered(path)}
    assert {"instdisc_core>ColorJitter", "instdisc_core>MemoryBank"} <= names
    assert names <= set(imported["serializable"])


@reads
def test_every_extra_that_is_to_be_installed_exists():
    """In messages and documents; those of messages with a name to fill in, where it is set."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = set(project["optional-dependencies"])
    places = [
        ROOT / name for name in ("instdisc_core", "backends", "benchmarks", "examples", "docs")
    ]
    files = [p for place in places for p in place.rglob("*") if p.suffix in (".py", ".md")]
    texts = {p: p.read_text() for p in (*files, *ROOT.glob("*.md"))}
    install = re.compile(r"""(?:instdisc-core|'\.|"\.|checkout)\[([\w,-]+|\{\w+\})\]""")
    asked = {(p.name, e) for p, text in texts.items() for e in install.findall(text)}
    named = {(p, extra) for p, extras in asked if "{" not in extras for extra in extras.split(",")}
    assert {p for p, extras in asked if "{" in extras} == {"packages.py", "newcomer.py"}
    for name in ("instdisc_torch/exports.py", "instdisc_tensorflow/exports.py"):
        text = texts[ROOT / "backends" / name]
        named |= {(name, extra) for extra in re.findall(r'extra = "(.*?)"', text)}
    named |= {("export.py", extra) for _, extra in NEEDS.values()}
    assert len(named) > 12
    assert {extra for _, extra in named} <= known, sorted(named)
