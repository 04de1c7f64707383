"""The kernels for GPUs pass the suite, on one or, with TRITON_INTERPRET=1, in the interpreter."""

import os

import keras
import numpy as np
import pytest

from instdisc_core import BankOps, MemoryBank
from instdisc_core.testing import BankOpsConformance, reference
from instdisc_core.testing.strategies import unit_rows

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

pytest.importorskip("triton", reason="PyTorch's CPU build comes without Triton")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from instdisc_torch import bank_ops, kernels, tiles


class Kernels(BankOps):
    """The kernels alone, on whatever device the bank is."""

    def scores(self, features, bank, indices):
        if indices.ndim == 1:
            return super().scores(features, bank, indices)
        return kernels.scores(features, *bank_ops.stored_parts(bank), indices)

    def combine(self, weights, bank, indices):
        if indices.ndim == 1:
            return super().combine(weights, bank, indices)
        return kernels.combine(weights, *bank_ops.stored_parts(bank), indices)

    def attend(self, features, bank, temperature):
        parts = kernels.attend(features, *bank_ops.stored_parts(bank), temperature)
        return bank_ops.merged(*parts)


class TestKernels(BankOpsConformance):
    bank_ops = Kernels()


def tensor(array):
    """On the device where Keras computes."""
    return keras.ops.convert_to_tensor(array)


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float64")


@pytest.mark.parametrize(
    ("dim", "dtype"),
    [
        *((dim, dtype) for dim in (3, 100, 128, 200, 512) for dtype in ("float32", "int8")),
        (100, "bfloat16"),
        (512, "bfloat16"),
        (128, "float16"),
    ],
)
def test_every_width_that_has_tiles(dim, dtype):
    rng = np.random.default_rng(dim)
    bank = MemoryBank(150, dim, dtype=dtype, seed=0)
    stored = bank_ops.stored_parts(bank.rows)
    rows = numpy(bank.lookup(np.arange(150)))
    features = tensor(unit_rows(rng, 70, dim))
    indices = rng.integers(0, 150, (70, 90)).astype("int32")
    scores = kernels.scores(features, *stored, tensor(indices))
    sums = kernels.combine(scores, *stored, tensor(indices))
    own = np.einsum("bd,bkd->bk", numpy(features), rows[indices])
    np.testing.assert_allclose(numpy(scores), own, rtol=1e-5, atol=3e-6)
    expected = np.einsum("bk,bkd->bd", own, rows[indices])
    np.testing.assert_allclose(numpy(sums), expected, rtol=1e-5, atol=3e-5)
    if tiles.has_attention(dim, stored[0].dtype):
        found = bank_ops.merged(*kernels.attend(features, *stored, 0.1))
        for actual, value in zip(found, reference.attend(numpy(features), rows, 0.1), strict=True):
            np.testing.assert_allclose(numpy(actual), value, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize(("batch", "rows", "chosen"), [(0, 5, 3), (2, 5, 0), (0, 5, 0), (2, 0, 0)])
def test_nothing_to_compute(batch, rows, chosen):
    features, bank = tensor(torch.ones(batch, 4)), tensor(torch.ones(rows, 4))
    indices = tensor(torch.zeros(batch, chosen, dtype=torch.int32))
    assert kernels.scores(features, bank, None, indices).shape == (batch, chosen)
    sums = kernels.combine(tensor(torch.ones(batch, chosen)), bank, None, indices)
    assert torch.equal(sums, torch.zeros_like(features))
    log_z, expected_row = bank_ops.merged(*kernels.attend(features, bank, None, 0.1))
    assert expected_row.shape == (batch, 4)
    assert rows or torch.equal(log_z, torch.full_like(log_z, -torch.inf))


def test_the_bank_is_cut_into_parts():
    features, bank = tensor(torch.eye(3, 16)), tensor(torch.eye(4000, 16))
    log_z_parts, expected_rows = kernels.attend(features, bank, None, 0.5)
    parts = len(log_z_parts)
    assert parts > 1
    assert log_z_parts.shape == (parts, 3)
    assert expected_rows.shape == (parts, 3, 16)


def test_a_launch_is_on_the_device_of_its_tensors(monkeypatch):
    """Triton launches on PyTorch's current device, wherever the tensors are."""
    guarded = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda t: guarded.append(t) or device_of(t))
    features, indices = tensor(torch.eye(3, 4)), tensor(torch.zeros(3, 2, dtype=torch.int32))
    kernels.attend(features, features, None, 0.1)
    kernels.scores(features, features, None, indices)
    kernels.combine(features[:, :2], features, None, indices)
    assert len(guarded) == 3


def test_a_compiled_step_calls_the_kernels():
    """PyTorch's compiler does not follow a launch."""
    features, indices = tensor(torch.eye(3, 4)), tensor(torch.ones(3, 2, dtype=torch.int32))
    scores = torch.compile(lambda f: kernels.scores(2 * f, f, None, indices) + 1, backend="eager")
    expected = 2 * features[:, [1, 1]] + 1
    torch.testing.assert_close(scores(features), expected)
