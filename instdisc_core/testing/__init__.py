"""A float64 reference, and conformance suites for backends and objectives.

Needs ``pip install 'instdisc-core[testing]'``. A backend passes when a subclass of
``BankOpsConformance`` does, an objective when a subclass of ``ObjectiveConformance`` does.
"""

from instdisc_core.testing import reference, strategies
from instdisc_core.testing.bank_ops_conformance import BankOpsConformance
from instdisc_core.testing.objective_conformance import ObjectiveConformance

__all__ = ["BankOpsConformance", "ObjectiveConformance", "reference", "strategies"]
