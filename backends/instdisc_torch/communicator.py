"""The ranks of ``torch.distributed``."""

import os
from collections.abc import Sequence
from typing import Literal

import keras
import torch
import torch.distributed as dist

from instdisc_core import Communicator


class TorchCommunicator(Communicator):
    """The ranks of the default process group of ``torch.distributed``.

    Example: ``bank = MemoryBank(50_000, 128)  # under torchrun it finds the ranks by itself``
    """

    def __init__(self) -> None:
        self.rank = self.process = dist.get_rank()
        self.size = self.processes = dist.get_world_size()

    def sizes(self, x: torch.Tensor) -> list[int]:
        """See ``Communicator.sizes``."""
        own = torch.tensor([x.shape[0]], device=x.device)
        return [int(n) for n in self._gathered(own)]

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

    def _gathered(self, x: torch.Tensor) -> torch.Tensor:
        """The tensors of all ranks, which have one shape."""
        gathered = x.new_empty(self.size * len(x), *x.shape[1:])
        if x.numel():
            dist.all_gather_into_tensor(gathered, x)
        return gathered


def communicator() -> Communicator:
    """The ranks of this process, one device if ``torch.distributed`` was not initialized."""
    if dist.is_available() and dist.is_initialized():
        return TorchCommunicator() if dist.get_world_size() > 1 else Communicator()
    if dist.is_torchelastic_launched() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"Received: torchrun with {os.environ['WORLD_SIZE']} processes that do not know each "
            "other. Expected torch.distributed.init_process_group() before the model is built. "
            "For processes that train models of their own, pass communicator=Communicator()."
        )
    return Communicator()
