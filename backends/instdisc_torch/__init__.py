"""The memory bank's primitives in PyTorch."""

from instdisc_torch.bank_ops import TorchBankOps

__all__ = ["TorchBankOps"]
