"""The memory bank's primitives in TensorFlow."""

from instdisc_tensorflow.bank_ops import TensorflowBankOps

__all__ = ["TensorflowBankOps"]
