"""The backend asked for is the one that runs, and every test has the same start."""

import os

import keras
import pytest
from hypothesis import HealthCheck, Phase, settings

from instdisc_core import get_bank_ops

# Several classes inherit the conformance suite, which Hypothesis would otherwise call an accident.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.differing_executors]}
settings.register_profile(
    "ci", max_examples=20, derandomize=True, phases=[Phase.explicit, Phase.generate], **_COMMON
)
settings.register_profile("long", max_examples=500, **_COMMON)  # pytest --hypothesis-profile=long
settings.load_profile("ci")


def pytest_sessionstart(session):
    asked = os.environ.get("KERAS_BACKEND")
    running = keras.backend.backend()
    serving = get_bank_ops().keras_backend
    if not asked == running == serving:
        pytest.exit(
            f"KERAS_BACKEND={asked}, but Keras runs on {running} and the bank on {serving}", 3
        )


def pytest_report_header(config):
    return f"keras backend: {keras.backend.backend()}, bank: {type(get_bank_ops()).__name__}"


@pytest.fixture(autouse=True)
def same_start():
    """Every test starts from the same random state, whichever ran before."""
    keras.utils.set_random_seed(0)
