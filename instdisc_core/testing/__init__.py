"""For those who write a backend or an objective: a float64 reference and a conformance suite.

Needs ``pip install 'instdisc-core[testing]'``. A backend passes when a subclass of
``BankOpsConformance`` does:

```python
from instdisc_core.testing import BankOpsConformance

class TestMyBankOps(BankOpsConformance):
    bank_ops = MyBankOps()
```
"""

from instdisc_core.testing import reference, strategies
from instdisc_core.testing.conformance import BankOpsConformance

__all__ = ["BankOpsConformance", "reference", "strategies"]
