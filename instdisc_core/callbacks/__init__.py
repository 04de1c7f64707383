"""Callbacks for training without labels."""

from instdisc_core.callbacks.bank_health import BankHealth
from instdisc_core.callbacks.knn_evaluation import KNNEvaluation
from instdisc_core.callbacks.log_file import LogFile, read_log
from instdisc_core.callbacks.log_picture import plot_log
from instdisc_core.callbacks.neighbor_labels import NeighborLabels
from instdisc_core.callbacks.tensorboard_logger import TensorBoardLogger

__all__ = [
    "BankHealth",
    "KNNEvaluation",
    "LogFile",
    "NeighborLabels",
    "TensorBoardLogger",
    "plot_log",
    "read_log",
]
