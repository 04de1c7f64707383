"""Instance discrimination without labels, on PyTorch, TensorFlow and JAX through Keras 3."""

from instdisc_core import keras_backend as keras_backend  # first: it imports no Keras

# isort: split
# A saved model may hold these packages' classes: Keras knows them once they are imported.
from instdisc_core import augmentation as augmentation
from instdisc_core import recipes as recipes
from instdisc_core.bank_ops import BankOps
from instdisc_core.callbacks import BankHealth, KNNEvaluation, LogFile, TensorBoardLogger
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.evaluation import weighted_knn
from instdisc_core.gradients import attach_gradient
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.model import InstanceDiscrimination
from instdisc_core.negative_sampler import AliasSampler, NegativeSampler, UniformSampler
from instdisc_core.objectives import (
    NCE,
    InfoNCE,
    NonParametricSoftmax,
    Objective,
    ParametricSoftmax,
    cheapest_objective,
    relative_costs,
)
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
    FirstBatches,
    MovingAveragePartition,
    PartitionPolicy,
)
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.registry import available_backends, get_bank_ops

__version__ = "0.1.0"

__all__ = [
    "NCE",
    "AliasSampler",
    "BankHealth",
    "BankOps",
    "Checkpoints",
    "ConstantPartition",
    "ExactPartition",
    "FirstBatches",
    "InfoNCE",
    "InstanceDiscrimination",
    "KNNEvaluation",
    "LogFile",
    "MemoryBank",
    "MovingAveragePartition",
    "NegativeSampler",
    "NonParametricSoftmax",
    "Objective",
    "ParametricSoftmax",
    "PartitionPolicy",
    "QuantizedRows",
    "TensorBoardLogger",
    "UniformSampler",
    "attach_gradient",
    "available_backends",
    "cheapest_objective",
    "get_bank_ops",
    "relative_costs",
    "weighted_knn",
]
