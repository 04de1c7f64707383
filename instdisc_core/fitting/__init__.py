"""What ``fit`` does around Keras's ``fit``: checks, callbacks of its own, resuming."""

from instdisc_core.fitting.calls import build_for, calls
from instdisc_core.fitting.data_order import DataOrder
from instdisc_core.fitting.even_batches import divided, whole_batch, without_padding
from instdisc_core.fitting.flushed_rows import FlushedRows
from instdisc_core.fitting.plain_steps import require_plain_steps
from instdisc_core.fitting.ranks import SameOnAllRanks, require_same_start, start_ranks
from instdisc_core.fitting.rejections import NonFiniteImages, RejectedGradients, RejectedIndices
from instdisc_core.fitting.waiting import Waiting

__all__ = [
    "DataOrder",
    "FlushedRows",
    "NonFiniteImages",
    "RejectedGradients",
    "RejectedIndices",
    "SameOnAllRanks",
    "Waiting",
    "build_for",
    "calls",
    "divided",
    "require_plain_steps",
    "require_same_start",
    "start_ranks",
    "whole_batch",
    "without_padding",
]
