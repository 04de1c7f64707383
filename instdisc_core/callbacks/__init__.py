"""Callbacks for training without labels."""

from instdisc_core.callbacks.bank_health import BankHealth
from instdisc_core.callbacks.knn_evaluation import KNNEvaluation
from instdisc_core.callbacks.logs import LogFile, TensorBoardLogger, plot_log

__all__ = [
    "BankHealth",
    "KNNEvaluation",
    "LogFile",
    "TensorBoardLogger",
    "plot_log",
]
