"""Instance discrimination without labels, on PyTorch, TensorFlow and JAX through Keras 3."""

from instdisc_core import keras_backend as keras_backend  # first: it imports no Keras

# isort: split
# A saved model may hold this package's classes: Keras knows them once they are imported.
from instdisc_core import augmentation as augmentation
from instdisc_core import pretrained as pretrained
from instdisc_core.bank_ops import BankOps
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.class_weights import ClassWeights
from instdisc_core.communicator import Communicator, get_communicator
from instdisc_core.layouts import layout_map
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.model import InstanceDiscrimination
from instdisc_core.negative_sampler import AliasSampler, UniformSampler
from instdisc_core.nnclr import NNCLR
from instdisc_core.objectives import (
    NCE,
    FeatureDecorrelation,
    InfoNCE,
    NonParametricSoftmax,
    Objective,
    ParametricSoftmax,
)
from instdisc_core.pic import PIC
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.registry import available_backends, get_bank_ops
from instdisc_core.support_set import SupportSet

__version__ = "0.1.0"

__all__ = [
    "NCE",
    "NNCLR",
    "PIC",
    "AliasSampler",
    "BankOps",
    "Checkpoints",
    "ClassWeights",
    "Communicator",
    "FeatureDecorrelation",
    "InfoNCE",
    "InstanceDiscrimination",
    "MemoryBank",
    "NonParametricSoftmax",
    "Objective",
    "ParametricSoftmax",
    "QuantizedRows",
    "SupportSet",
    "UniformSampler",
    "available_backends",
    "get_bank_ops",
    "get_communicator",
    "layout_map",
]
