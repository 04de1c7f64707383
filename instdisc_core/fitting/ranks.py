"""What several ranks do before the first step of a training."""

import sys
from typing import Any

import keras

from instdisc_core.checkpoints.identity import identity
from instdisc_core.communicator import get_communicator
from instdisc_core.data.order import OrderedBatches
from instdisc_core.devices import (
    ShardedBankOps,
    require_equal,
    require_same_values,
    synchronize,
)
from instdisc_core.devices.synchronize import shared_variables
from instdisc_core.validation import require


def require_same_start(model: Any, batches: OrderedBatches | None) -> None:
    """Raise, on all ranks, unless they train the same model on the same data.

    Args:
        model: built, with its optimizer.
        batches: the training data; None if their order is not known.

    Raises:
        ValueError: ranks that differ, that read other parts of the data than their own, or that
            were started after the model was built.
    """
    own, rows = model.communicator, model.memory_bank
    now = get_communicator(None if rows is None else rows.given_communicator)
    require(
        now.size in (1, own.size),  # 1 outside of the scope of a strategy
        f"a model of {own.size} ranks in a process group of {now.size}",
        "ranks that know each other before the model is built",
        "Call torch.distributed.init_process_group() first.",
    )
    require(
        batches is None or batches.part == (own.process, own.processes),
        f"batches of part {batches and batches.part} on rank {own.process} of {own.processes}",
        "the part of this rank",
        "Build batches and model after the process group, for the same ranks.",
    )
    if own.processes == 1:
        return
    objective = getattr(model, "objective", None)
    facts = {
        "version": vars(sys.modules["instdisc_core"])["__version__"],
        "Keras": keras.__version__,
        "num_instances": None if rows is None else rows.num_rows,
        "embedding_dim": model.embedding_dim,
        "seed": model.seed,
        "sharded": rows is not None and isinstance(rows.bank_ops, ShardedBankOps),
        "objective": None if objective is None else str(objective.get_config())[:1000],
        **{name: getattr(model, name) for name in model.loss_settings},
        **identity(model, batches),
    }
    require_equal(own, facts)


def start_ranks(model: Any) -> None:
    """Give all ranks the state of rank 0, each its own random numbers, and join their gradients.

    Args:
        model: built, with its optimizer; checkpoints are restored already.
    """
    own = model.communicator
    if own.size > 1:
        model.report_loss_of_all()
        synchronize(own, model, *([] if model.optimizer is None else [model.optimizer]))
        draw_apart(model)
        own.prepare(model)


def end_ranks(model: Any) -> None:
    """Take back what ``start_ranks`` did for a training that has ended."""
    model.communicator.release(model)
    model._is_started = False


class SameOnAllRanks(keras.callbacks.Callback):
    """Raises at the end of an epoch after which weights, rows or log Z differ between ranks."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare what every rank has."""
        model = self.model
        names = "memory_bank", "objective", "support_set"
        parts = [getattr(model, name, None) for name in names]
        shared = shared_variables(part for part in parts if part is not None)
        variables = [*model.trainable_variables, *shared]
        require_same_values(model.communicator, {id(v): v for v in variables}.values())


class StopTogether(keras.callbacks.Callback):
    """Ends a training on all ranks after an epoch in which a callback of one rank ended it."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Exchange who stops."""
        own = b"1" if self.model.stop_training else b"0"
        self.model.stop_training = b"1" in self.model.communicator.exchange(own)


def draw_apart(model: Any) -> None:
    """Let augmentation and dropout draw other numbers on each rank.

    All ranks have the random states of rank 0, which a checkpoint holds. Rank ``r`` adds ``r``
    times a constant to the seed and keeps the count of draws, so that a run that continues draws
    what it would have drawn. The negatives stay those of all ranks.
    """
    own = model.communicator
    for state in model.states_drawn_apart() if own.process else ():
        seed, drawn = state.numpy().tolist()
        state.assign([own.own_seed(seed, own.process), drawn])
