"""What ``fit`` does before Keras's ``fit``: checks, callbacks of its own, resuming."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from instdisc_core.checkpoints import Checkpoints, Position
from instdisc_core.communicator import Communicator
from instdisc_core.data.batches import ArrayBatches
from instdisc_core.data.checked import require_finite_images, require_images, with_narrow_indices
from instdisc_core.data.order import OrderedBatches
from instdisc_core.fitting.data_order import DataOrder, warn_of_the_same_images
from instdisc_core.fitting.even_batches import batches_to_divide, divided
from instdisc_core.fitting.ranks import StopTogether, end_ranks, require_same_start, start_ranks
from instdisc_core.fitting.resuming import resumed
from instdisc_core.fitting.waiting import Waiting
from instdisc_core.validation import require


@contextmanager
def calls(model: Any, arguments: dict[str, Any]) -> Iterator[Iterable[dict[str, Any]]]:
    """The arguments of each call of Keras's ``fit`` that a training needs: usually one.

    Data are checked, and several processes agree on them. The callbacks that every training needs
    are added. With ``Checkpoints`` among the callbacks, or in several processes, arrays get an
    order that can be resumed and shared, and the newest checkpoint is loaded into the model. If
    that checkpoint is in the middle of an epoch, the rest of the epoch is a call of its own.

    Args:
        model: the EmbeddingModel.
        arguments: the arguments of its ``fit``, by name. They are changed.

    Yields:
        The arguments of each call, one after the other.

    Raises:
        ValueError: data that cannot be trained on, or checkpoints that do not fit.
    """
    require_images(arguments["x"])
    if model.non_finite == "raise":
        require_finite_images(arguments["x"])
    given = arguments["callbacks"]
    listed = keras.tree.flatten(getattr(given, "callbacks", given) or [])
    savers = [callback for callback in listed if isinstance(callback, Checkpoints)]
    require(len(savers) < 2, f"{len(savers)} Checkpoints", "one")
    require(
        not (model.has_rows_of_host and any(map(_restores_weights, listed))),
        "EarlyStopping(restore_best_weights=True), and rows in the host's memory or in a file, "
        "which it would not restore",
        "another way to the best weights",
        "Use ModelCheckpoint(path, save_best_only=True), and load its weights afterwards.",
    )
    if arguments["y"] is not None and (savers or _is_uneven(model, arguments)):
        _batch_arrays(arguments, model.seed or 0, model.communicator)
    others = [*model.own_callbacks(), *(c for c in listed if c not in savers)]
    ordered = arguments["x"] if isinstance(arguments["x"], OrderedBatches) else None
    if ordered is None:
        arguments["x"] = with_narrow_indices(arguments["x"])
    else:
        _require_whole_epochs(arguments)
        others[:0] = [DataOrder(ordered), Waiting(ordered)]
        arguments["shuffle"] = False  # the batches have an order of their own
    with model.communicator.scope():
        build_for(model, arguments["x"])
    if model.communicator.process:
        arguments["verbose"] = 0
    require_same_start(model, ordered)
    start = Position(arguments.get("initial_epoch", 0), 0)
    with ExitStack() as stack:
        stack.enter_context(model.communicator.scope())
        _divide(arguments, stack)
        for saver in savers:
            start = stack.enter_context(
                saver.running(model, ordered, others, start, arguments["epochs"])
            )
        if ordered is not None and not start.step:
            warn_of_the_same_images(model, ordered, start.epoch)
        model.check_batch(_smallest_batch(arguments))
        start_ranks(model)
        stack.callback(end_ranks, model)
        together = [StopTogether()] if model.communicator.processes > 1 else []
        callbacks = [*others, *together, *savers]
        if isinstance(given, keras.callbacks.CallbackList):
            for callback in callbacks:
                callback.set_model(model)
            stack.callback(setattr, given, "callbacks", given.callbacks)
            given.callbacks, callbacks = callbacks, given
        arguments |= {"callbacks": callbacks, "initial_epoch": start.epoch}
        if ordered is not None and start.step and start.epoch < arguments["epochs"]:
            stack.callback(setattr, ordered, "start", 0)
            yield resumed(model, ordered, arguments, start.step)
        else:
            yield [arguments]


def _is_uneven(model: Any, arguments: dict[str, Any]) -> bool:
    """Whether arrays must be batched so that processes and devices divide them."""
    x, y, batch_size = (arguments[name] for name in ("x", "y", "batch_size"))
    uneven = batches_to_divide(x, y, batch_size=batch_size) is not None
    return uneven or model.communicator.processes > 1


def _divide(arguments: dict[str, Any], stack: ExitStack) -> None:
    """Replace data that the devices of ``keras.distribution`` do not divide, until the end."""
    given = arguments.get("validation_data")
    parts = given if isinstance(given, (tuple, list)) else (given,)
    batch_size = arguments.get("validation_batch_size") or arguments["batch_size"]
    x, y, weights = (*parts, None, None)[:3]
    even = stack.enter_context(divided(x, y, weights, batch_size))
    arguments["validation_data"] = given if even is None else even
    if isinstance(arguments["x"], OrderedBatches):
        even = stack.enter_context(divided(arguments["x"]))
        arguments["x"] = arguments["x"] if even is None else even


def _batch_arrays(arguments: dict[str, Any], seed: int, own: Communicator) -> None:
    """Replace arrays by batches of them, in an order that all processes and a checkpoint know."""
    split = arguments.get("validation_split")
    require(
        not split,
        f"validation_split={split} with Checkpoints, or on several devices",
        "validation_data",
        "Split the arrays before fit.",
    )
    order = seed if arguments.get("shuffle", True) else None
    weights = arguments.pop("sample_weight", None)
    batch_size = arguments["batch_size"] or 32
    arrays = ArrayBatches(arguments["x"], arguments["y"], weights, batch_size, order)
    arrays.part = own.process, own.processes
    arguments |= {"x": arrays, "y": None, "batch_size": None}


def _restores_weights(callback: keras.callbacks.Callback) -> bool:
    return bool(getattr(callback, "restore_best_weights", False))


def _smallest_batch(arguments: dict[str, Any]) -> int | None:
    """The images in the smallest batch, of all processes; None where it is not known."""
    x, batch_size = arguments["x"], arguments["batch_size"] or 32
    if isinstance(x, OrderedBatches):
        n, batch_size = x.num_images, x.batch_size
        return min(n, batch_size) if x.drop_remainder else n % batch_size or batch_size
    arrays = keras.tree.flatten(x)
    known = all(hasattr(array, "shape") and len(array.shape) > 0 for array in arrays)
    if not known or arguments.get("steps_per_epoch") or arguments.get("validation_split"):
        return None
    n = arrays[0].shape[0]
    return n % batch_size or batch_size


def _require_whole_epochs(arguments: dict[str, Any]) -> None:
    steps, batches = arguments.get("steps_per_epoch"), arguments["x"]
    require(
        steps is None,
        f"steps_per_epoch={steps} with {type(batches).__name__}",
        "whole epochs, in which every image is seen once",
        "Leave it out; for shorter epochs train on source.subset(...).",
    )


def build_for(model: keras.Model, x: Any) -> None:
    """Build a model and its optimizer, if the data show the shape of the input."""
    if model.built and (model.optimizer is None or model.optimizer.built):
        return
    if isinstance(x, keras.utils.PyDataset):
        batch = x[0]
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
    arrays = keras.tree.flatten(x)
    if not all(hasattr(array, "shape") for array in arrays):
        return  # a stream: Keras builds the model on its first batch
    if not model.built:
        model.build(keras.tree.map_structure(lambda array: (None, *array.shape[1:]), x))
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
