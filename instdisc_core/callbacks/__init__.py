"""Callbacks for training without labels."""

from instdisc_core.callbacks.bank_health import BankHealth
from instdisc_core.callbacks.data_order import DataOrder
from instdisc_core.callbacks.knn_evaluation import KNNEvaluation
from instdisc_core.callbacks.logs import LogFile, TensorBoardLogger, plot_log
from instdisc_core.callbacks.rejections import NonFiniteImages, RejectedIndices

__all__ = [
    "BankHealth",
    "DataOrder",
    "KNNEvaluation",
    "LogFile",
    "NonFiniteImages",
    "RejectedIndices",
    "TensorBoardLogger",
    "plot_log",
]
