"""Callbacks for training without labels."""

from instdisc_core.callbacks.bank_health import BankHealth
from instdisc_core.callbacks.knn_evaluation import KNNEvaluation
from instdisc_core.callbacks.logs import TensorBoardLogger, plot_log
from instdisc_core.callbacks.training import DataOrder, RefusedIndices

__all__ = [
    "BankHealth",
    "DataOrder",
    "KNNEvaluation",
    "RefusedIndices",
    "TensorBoardLogger",
    "plot_log",
]
