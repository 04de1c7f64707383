"""The ranks of a training: what they exchange, and the batch that they share."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from typing import Any, Literal

import keras
from keras import ops

from instdisc_core.types import Tensor
from instdisc_core.validation import require

GROUP = "instdisc_core.communicators"
LARGEST_SEED = 2**31 - 1
STRIDE = 1_000_003  # from the seed of one rank to that of the next


class Communicator:
    """One rank among those that train one model together; by itself, the only one.

    A rank is a device with its own part of each batch. The ranks gather the batch first, and each
    then computes what one device would compute for all of it. A backend subclasses this for its
    framework: ``all_gather`` and ``all_reduce`` for tensors, inside a step, and ``exchange`` for
    what processes tell each other outside. None of them is differentiated through.

    Attributes:
        rank, size: which rank this is, from 0, and how many there are. ``rank`` may be a tensor
            where one process has several ranks.
        process, processes: which process this is, from 0, and how many train together. Each of
            them reads its own part of the data.
        stores_parts: whether each rank can store a part of the bank.
        divides_branches: whether the two branches of ``NNCLR`` can be divided among the ranks.
        sums_gradients: whether the framework adds the gradients of the ranks; else it takes their
            mean.
        is_idle: whether this rank has no image of the present batch.

    Example: ``assert Communicator().size == 1``
    """

    rank: Any = 0
    size: int = 1
    process: int = 0
    processes: int = 1
    stores_parts = True
    divides_branches = False
    sums_gradients = False
    is_idle = False

    def all_gather(self, x: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """The tensors of all ranks, one after the other along the first axis.

        Args:
            x: ``(rows, ...)``; the ranks may have different numbers of rows.
            sizes: these numbers, one for each rank, where they are known.

        Returns:
            Tensor ``(sum of rows, ...)``, the same on every rank.
        """
        return x

    def all_reduce(self, x: Tensor, op: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum or the maximum over the ranks of a tensor that has one shape on all of them."""
        return x

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all processes, in their order. Every process calls it."""
        return [message]

    @property
    def layers(self) -> Mapping[type, Any]:
        """How layers that read the whole batch are computed on several ranks, by their class.

        Each is a function as those of ``native_layers``: batch normalization, say, with the
        statistics of all ranks.
        """
        return {}

    def scope(self) -> AbstractContextManager[Any]:
        """Where variables of all ranks are created and ``fit`` is called, if a framework asks."""
        return nullcontext()

    def prepare(self, model: keras.Model) -> None:
        """What a framework needs once before ``fit`` trains on several ranks: joined gradients."""

    @staticmethod
    def own_seed(seed: int, rank: int) -> int:
        """What a rank draws augmentation and dropout from, where rank 0 draws from ``seed``.

        Example: ``assert Communicator.own_seed(5, rank=1) != 5``
        """
        return (seed + rank * STRIDE) % LARGEST_SEED

    def release(self, model: keras.Model) -> None:
        """Take back ``prepare`` when ``fit`` has ended: one rank may then use the model alone."""

    def sizes(self, x: Tensor) -> Sequence[int]:
        """How many rows ``x`` has on each rank."""
        return [x.shape[0]]

    def whole_batch(self, features: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
        """The batch of all ranks, in the order of the ranks.

        Args:
            features: ``(rows, ...)`` of this rank, differentiated through.
            others: more of the same images, such as their indices; None stays None.

        Returns:
            A tuple of ``features`` and ``others`` of all ranks. A gradient flows to this rank's own
            rows of ``features`` alone.

        Example:
        ```python
        own = Communicator()
        whole_features, whole_indices = own.whole_batch(features, indices)
        ```
        """
        if self.size == 1:
            return features, *others
        sizes = self.sizes(features)
        start, own = sum(sizes[: self.rank]), sizes[self.rank]
        gathered = self.all_gather(ops.stop_gradient(features), sizes)
        whole = ops.concatenate([gathered[:start], features, gathered[start + own :]])
        return whole, *(None if x is None else self.all_gather(x, sizes) for x in others)

    def whole_loss(self, loss: Tensor, regularizers: Sequence[Tensor] = ()) -> Tensor:
        """A loss whose gradient, joined over the ranks, is that of one device.

        On each rank the gradient of the loss flows to its own images alone, so the ranks' gradients
        must be added. Where the framework takes their mean, the loss counts ``size`` times in the
        gradient. Where it adds them, value and gradient are divided by ``size``, as Keras and
        ``tf.distribute`` expect of a loss.

        Args:
            loss: ``()``, of the whole batch.
            regularizers: further terms, which each rank computes whole, such as weight decay.

        Returns:
            Scalar tensor: what to differentiate.

        Example: ``loss = Communicator().whole_loss(keras.ops.mean(keras.ops.ones(4)))``
        """
        if self.size > 1:
            value = ops.stop_gradient(loss)
            loss = value + self.size * (loss - value)
        for regularizer in regularizers:
            loss = loss + regularizer
        return loss / self.size if self.sums_gradients else loss


def get_communicator(communicator: Communicator | None = None) -> Communicator:
    """The Communicator to use.

    Args:
        communicator: one, which is returned unchanged; or None for that of the active framework:
            under ``torchrun``, say, that of the process group. ``Communicator()`` is one device,
            whatever runs next to it.

    Returns:
        A Communicator.

    Raises:
        ValueError: something else, or several processes were started and do not know each other.

    Example: ``get_communicator().size  # 1 on one device``
    """
    if communicator is not None:
        require(
            isinstance(communicator, Communicator),
            f"communicator={communicator!r}",
            "a Communicator, or None for that of the framework",
        )
        return communicator
    backend = keras.backend.backend()
    if backend not in _loaded:
        found = {point.name: point for point in entry_points(group=GROUP)}
        _loaded[backend] = found[backend].load() if backend in found else Communicator
    return _loaded[backend]()


def require_one_device(name: str, or_ranks: bool = False) -> None:
    """Raise if several ranks are to train something that cannot be divided yet.

    Args:
        name: what it is.
        or_ranks: whether it can be, where the communicator ``divides_branches``.

    Raises:
        ValueError: there are several ranks.

    Example:
    ```python
    from instdisc_core.communicator import require_one_device

    require_one_device("PIC")
    ```
    """
    own = get_communicator()
    ranks = max(own.size, own.processes)
    require(
        ranks == 1 or (or_ranks and own.divides_branches),
        f"{name} on {ranks} ranks",
        "one device, or torchrun" if or_ranks else "one device",
        "InstanceDiscrimination trains on several.",
    )


def writes_files(model: Any) -> bool:
    """Whether this process writes the files of a training: one of those that train the model.

    Example:
    ```python
    from instdisc_core.communicator import writes_files

    assert writes_files(model)
    ```
    """
    return getattr(model, "communicator", Communicator).process == 0


_loaded: dict[str, Any] = {}  # by backend: a function that returns the Communicator of this process
