"""The ranks of ``torch.distributed``."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import keras
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

from instdisc_core import Communicator
from instdisc_torch.joined_gradients import (
    join_gradients,
    leave_out_sharded_rows,
    part_gradients,
)
from instdisc_torch.synchronized import batch_normalization, warn_of_batch_norms


class TorchCommunicator(Communicator):
    """The ranks of the default process group of ``torch.distributed``.

    Example: ``bank = MemoryBank(50_000, 128)  # under torchrun it finds the ranks by itself``
    """

    divides_branches = True

    def __init__(self) -> None:
        self.rank = self.process = dist.get_rank()
        self.size = self.processes = dist.get_world_size()

    def sizes(self, x: torch.Tensor) -> list[int]:
        """See ``Communicator.sizes``."""
        own = torch.tensor([x.shape[0]], device=x.device)
        return self._gathered(own).tolist()

    def all_gather(self, x: torch.Tensor, sizes: Sequence[int] | None = None) -> torch.Tensor:
        """See ``Communicator.all_gather``. Shorter tensors are sent with zeros at their end."""
        sizes = self.sizes(x) if sizes is None else list(sizes)
        own = x.detach().contiguous()
        if max(sizes) > len(own):
            own = torch.cat([own, own.new_zeros(max(sizes) - len(own), *own.shape[1:])])
        sent = own.view(torch.uint8) if own.dtype == torch.bool else own
        gathered = self._gathered(sent)
        if min(sizes) < max(sizes):
            gathered = torch.cat(
                [part[:n] for part, n in zip(gathered.split(max(sizes)), sizes, strict=True)]
            )
        return gathered.view(own.dtype)

    def all_reduce(self, x: torch.Tensor, op: Literal["sum", "max"] = "sum") -> torch.Tensor:
        """See ``Communicator.all_reduce``."""
        reduced = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(reduced, dist.ReduceOp.MAX if op == "max" else dist.ReduceOp.SUM)
        return reduced

    def exchange(self, message: bytes) -> list[bytes]:
        """See ``Communicator.exchange``."""
        device = keras.ops.convert_to_tensor(0).device
        own = torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else torch.empty(0)
        own = own.to(device, torch.uint8)
        sizes = self.sizes(own)
        return [part.numpy().tobytes() for part in self.all_gather(own, sizes).cpu().split(sizes)]

    @property
    def layers(self) -> Mapping[type, Any]:
        """See ``Communicator.layers``: batch normalization by the images of all ranks."""
        return {keras.layers.BatchNormalization: partial(batch_normalization, self.is_idle)}

    def prepare(self, model: keras.Model) -> None:
        """See ``Communicator.prepare``.

        A Keras that wraps the model in DistributedDataParallel joins the gradients itself. It is
        told to leave out the rows of a sharded bank. Under any other, hooks join them.

        Raises:
            ValueError: a part of the model is a DistributedDataParallel.
        """
        wrapped = [name for name, m in model.named_modules() if isinstance(m, DDP)]
        if wrapped:
            raise ValueError(
                f"Received: {wrapped[0]}, a DistributedDataParallel in a model. Expected its "
                "module: fit joins the gradients of the ranks."
            )
        warn_of_batch_norms(model)
        if hasattr(model, "_initialize_ddp"):
            leave_out_sharded_rows(model)
        else:
            join_gradients([v.value for v in model.trainable_variables], self.size)

    def release(self, model: keras.Model) -> None:
        """See ``Communicator.release``."""
        part_gradients([v.value for v in model.trainable_variables])

    def _gathered(self, x: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, which have one shape."""
        gathered = x.new_empty(self.size * len(x), *x.shape[1:])
        if x.numel():
            _all_gather(gathered, x)
        return gathered


# Before 2.13; a PyTorch without torch.distributed has neither.
_all_gather: Any = getattr(dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None))


def communicator() -> Communicator:
    """The ranks of this process, one device if ``torch.distributed`` was not initialized."""
    _require_no_ignored_distribution()
    if not dist.is_available():
        return Communicator()
    if dist.is_initialized():
        return TorchCommunicator() if dist.get_world_size() > 1 else Communicator()
    if dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"Received: torchrun with {os.environ['WORLD_SIZE']} processes that do not know each "
            "other. Expected torch.distributed.init_process_group() before the model is built. "
            "For processes that train models of their own, pass communicator=Communicator()."
        )
    return Communicator()


def _require_no_ignored_distribution() -> None:
    """Raise if ``keras.distribution`` was set and this Keras does nothing with it on PyTorch."""
    if keras.distribution.distribution() is None:
        return
    try:
        keras.distribution.list_devices()
    except Exception as error:
        raise ValueError(
            "Received: keras.distribution.set_distribution(...) on PyTorch, which Keras "
            f"{keras.__version__} ignores. Expected none: start the script with torchrun, and call "
            "torch.distributed.init_process_group()."
        ) from error
