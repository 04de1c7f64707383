"""The kernels for GPUs pass the suite, on one or, with TRITON_INTERPRET=1, in the interpreter."""

import os

import keras
import pytest

from instdisc_core import BankOps
from instdisc_core.testing import BankOpsConformance

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

pytest.importorskip("triton", reason="PyTorch's CPU build comes without Triton")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from instdisc_torch import bank_ops, kernels


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


def test_the_bank_is_cut_into_parts():
    features, bank = torch.eye(3, 16), torch.eye(4000, 16)
    log_z_parts, expected_rows = kernels.attend(features, bank, None, 0.5)
    parts = len(log_z_parts)
    assert parts > 1
    assert log_z_parts.shape == (parts, 3)
    assert expected_rows.shape == (parts, 3, 16)
