"""The backend asked for is the one that runs, and every test has the same start."""

import gc
import os
import tempfile
import warnings

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
settings.register_profile("few", settings.get_profile("ci"), max_examples=10)  # of slow ones
settings.register_profile("fewest", settings.get_profile("ci"), max_examples=5)
if keras.backend.backend() == "torch":
    settings.load_profile("ci")
else:  # which compile each shape, and trace each example
    settings.load_profile("few")

if keras.backend.backend() == "jax":
    import jax

    # What tests compile again is compiled once, for processes that tests start too: the steps of
    # models of the same shape, and the loops of eager operations, which JAX compiles at each call.
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    for setting, value in {
        "jax_compilation_cache_dir": os.environ.get("JAX_COMPILATION_CACHE_DIR", COMPILED.name),
        "jax_persistent_cache_min_compile_time_secs": 0,
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

# The half million objects of a framework stay: looking through them takes a twentieth of the time.
gc.set_threshold(10_000)

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


def pytest_collection_modifyitems(items):
    """What does not depend on the framework is run on torch, which compiles nothing."""
    if keras.backend.backend() != "torch":
        skip = pytest.mark.skip(reason="does not depend on the framework, and torch runs it")
        for item in items:
            if any(map(item.get_closest_marker, ("framework_independent", "on_one_backend"))):
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that is said to call no framework fails where it does."""
    if keras.backend.backend() != "torch" or not item.get_closest_marker("framework_independent"):
        return (yield)
    from torch.overrides import TorchFunctionMode

    class Forbidden(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            raise AssertionError(f"it is not independent of the framework: it calls {function}")

    with Forbidden():
        return (yield)


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same random state, whichever ran before."""
    keras.utils.set_random_seed(0)


@pytest.fixture
def uncompiled():
    """TensorFlow executes what it would compile; for networks, with which that takes long."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Even though the `tf.config.*tf.data functions")
        yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def searches_are_eager(request, monkeypatch):
    """TensorFlow compiles a search for each bank, which the tests of backends alone need."""
    if keras.backend.backend() == "tensorflow" and request.path.parent.name != "backends":
        monkeypatch.delattr(type(get_bank_ops()), "_nearest")


@pytest.fixture
def bank():
    """A bank that must come out of the test as it went in."""
    bank = MemoryBank(SIZE, DIM, seed=0)
    before = [numpy(v) for v in bank.variables]
    yield bank
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
