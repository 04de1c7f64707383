"""Who may import whom, and what an import does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "tensorflow", "jax"}
EXTRAS = {"sklearn", "matplotlib", "scipy", "hypothesis", "pytest", "PIL", "tqdm", "tensorboardX"}
# Modules that look at results, and may use an extra inside a function, when they are asked to.
WITH_EXTRAS = {
    "data": {"PIL"},
    "evaluation": {"sklearn", "scipy", "matplotlib", "PIL"},
    "callbacks": {"matplotlib", "tensorboardX"},
}
# Floors of the house: a module imports from floors below its own, or beside it without a circle.
FLOORS = {
    "validation": 0,
    "files": 0,
    "gradients": 0,
    "quantized_rows": 0,
    "data": 1,
    "bank_ops": 1,
    "registry": 2,
    "negative_sampler": 2,
    "partition": 2,
    "memory_bank": 3,
    "objectives": 4,
    "augmentation": 4,
    "encoders": 4,
    "health": 4,
    "evaluation": 5,
    "checkpoints": 2,
    "callbacks": 6,
    "fitting": 7,
    "persistent_model": 3,
    "model": 8,
    "recipes": 9,
    "testing": 9,
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


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_a_backend_imports_its_framework_and_the_core_s_public_names(framework):
    allowed = {"keras", "instdisc_core", framework, f"instdisc_{framework}"}
    allowed |= {"triton"} if framework == "torch" else set()  # comes with PyTorch for GPUs
    allowed |= set(sys.stdlib_module_names)
    for path in modules(f"backends/instdisc_{framework}"):
        for name in imports(path):
            assert name.split(".")[0] in allowed, f"{path} imports {name}"
            if name.startswith("instdisc_core."):
                assert name.split(".")[1] in __import__("instdisc_core").__all__, name


def test_nothing_imports_the_tests_or_the_examples():
    for path in [*modules("instdisc_core"), *modules("backends"), *modules("examples")]:
        assert not {n.split(".")[0] for n in imports(path)} & {"tests", "benchmarks"}, path


def test_all_is_complete_and_sorted_out():
    import instdisc_core

    for name in instdisc_core.__all__:
        thing = getattr(instdisc_core, name)
        assert thing.__doc__, f"{name} has no docstring"


def test_importing_the_core_changes_nothing_global():
    code = (
        "import logging, sys, warnings, keras, numpy as np\n"
        "before = (logging.getLogger().handlers[:], logging.getLogger().level,\n"
        "          warnings.filters[:], np.random.get_state()[1].tolist(), keras.config.floatx())\n"
        "loaded = set(sys.modules)\n"
        "import instdisc_core\n"
        "after = (logging.getLogger().handlers[:], logging.getLogger().level,\n"
        "         warnings.filters[:], np.random.get_state()[1].tolist(), keras.config.floatx())\n"
        "assert before == after\n"
        f"assert not {EXTRAS!r} & (set(sys.modules) - loaded)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
