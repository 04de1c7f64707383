"""Backends are found without being loaded, and each failure has its own error."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import (
    BankOps,
    MemoryBank,
    NonParametricSoftmax,
    backends,
    get_bank_ops,
    registry,
)

ACTIVE = keras.backend.backend()
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
        monkeypatch.setattr(registry, "backends", lambda: points)

    return register


def test_the_three_are_known_by_the_names_that_keras_uses():
    assert {"torch", "tensorflow", "jax"} <= set(backends())


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


def test_discovery_imports_no_framework():
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "names = {e.name for e in entry_points(group='instdisc_core.backends')}\n"
        "assert {'torch', 'tensorflow', 'jax'} <= names, names\n"
        "assert not {'torch', 'tensorflow', 'jax'} & set(sys.modules)\n"
        "import instdisc_core\n"
        "assert instdisc_core.backends()\n"
        "assert not {m for m in sys.modules if m.split('.')[0].startswith('instdisc_')} "
        "- {m for m in sys.modules if m.split('.')[0] == 'instdisc_core'}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
