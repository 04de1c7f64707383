"""The processes of ``keras.distribution.initialize``."""

import jax
import keras
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from instdisc_core import Communicator


class JaxCommunicator(Communicator):
    """One rank in several processes: on JAX each of them computes with the arrays of all.

    Every process must do the same in the same order, and reads its own part of the data.

    Example: ``bank = MemoryBank(50_000, 128)  # it finds the processes by itself``
    """

    def __init__(self) -> None:
        self.process, self.processes = jax.process_index(), jax.process_count()

    def exchange(self, message: bytes) -> list[bytes]:
        """See ``Communicator.exchange``."""
        sizes = process_allgather(np.array([len(message)])).ravel()
        own = np.zeros(int(sizes.max()), "uint8")
        own[: len(message)] = np.frombuffer(message, "uint8")
        found = process_allgather(own).reshape(self.processes, -1)
        return [row[:size].tobytes() for row, size in zip(found, sizes, strict=True)]


def communicator() -> Communicator:
    """The processes of this training; one device if JAX was not told of others."""
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return Communicator()
    if keras.distribution.distribution() is None:
        raise ValueError(
            f"Received: {jax.process_count()} processes of JAX and no distribution, so that each "
            "would train a model of its own. Expected keras.distribution.set_distribution(...) "
            "before the model and its batches are built. For models of their own, pass "
            "communicator=Communicator()."
        )
    return JaxCommunicator()
