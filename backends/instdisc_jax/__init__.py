"""The memory bank's primitives in JAX."""

from instdisc_jax.bank_ops import JaxBankOps

__all__ = ["JaxBankOps"]
