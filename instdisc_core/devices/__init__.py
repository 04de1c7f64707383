"""Many devices, one bank: wrappers that divide the work or the rows of any BankOps."""

from instdisc_core.devices.sharded import ShardedBankOps
from instdisc_core.devices.split import SplitBankOps
from instdisc_core.devices.synchronize import require_equal, require_same_values, synchronize

__all__ = ["ShardedBankOps", "SplitBankOps", "require_equal", "require_same_values", "synchronize"]
