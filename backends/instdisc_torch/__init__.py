"""The memory bank's primitives in PyTorch."""

from instdisc_torch.bank_ops import TorchBankOps
from instdisc_torch.communicator import TorchCommunicator
from instdisc_torch.joined_gradients import leave_out_sharded_rows

__all__ = ["TorchBankOps", "TorchCommunicator", "leave_out_sharded_rows"]
