"""The backend asked for is the one that runs, and every test has the same start."""

import os
import tempfile

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import HealthCheck, Phase, settings
from models import DIM, SIZE

from instdisc_core import MemoryBank, get_bank_ops

# Several classes inherit the conformance suite, which Hypothesis would otherwise call an accident.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.differing_executors]}
settings.register_profile(
    "ci", max_examples=20, derandomize=True, phases=[Phase.explicit, Phase.generate], **_COMMON
)
settings.register_profile("long", max_examples=500, **_COMMON)  # pytest --hypothesis-profile=long
settings.load_profile("ci")

if keras.backend.backend() == "jax":
    import jax

    # Many tests train a model of the same shape: its step is compiled once, for processes that
    # tests start too.
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    for setting, value in {
        "jax_compilation_cache_dir": COMPILED.name,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }.items():
        jax.config.update(setting, value)
        os.environ[setting.upper()] = str(value)

    if jax.default_backend() != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")
elif keras.backend.backend() == "torch":
    import torch

    # Where there is a GPU, and for what tests compare with each other only: its own precision of
    # products and convolutions is lower, and the order of its sums changes.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True

# What changes the order of floating-point operations; tox.ini sets them.
PROCESSOR_SETTINGS = (
    "OMP_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
    "TF_ENABLE_ONEDNN_OPTS",
    "ONEDNN_MAX_CPU_ISA",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",
    "XLA_FLAGS",
)


def pytest_sessionstart(session):
    asked = os.environ.get("KERAS_BACKEND")
    running = keras.backend.backend()
    serving = get_bank_ops().keras_backend
    if not asked == running == serving:
        pytest.exit(
            f"KERAS_BACKEND={asked}, but Keras runs on {running} and the bank on {serving}", 3
        )


def pytest_report_header(config):
    backend = keras.backend.backend()
    processor = [f"{name}={os.environ[name]}" for name in PROCESSOR_SETTINGS if name in os.environ]
    if backend == "torch":
        capability = torch.backends.cpu.get_cpu_capability()
        processor.append(f"{capability}, {torch.get_num_threads()} threads")
    return [
        f"keras backend: {backend}, bank: {type(get_bank_ops()).__name__}",
        f"processor: {', '.join(processor) or 'no settings'}",
    ]


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same random state, whichever ran before."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def bank():
    """A bank that must come out of the test as it went in."""
    bank = MemoryBank(SIZE, DIM, seed=0)
    before = [numpy(v) for v in bank.variables]
    yield bank
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
