"""The states of callbacks and metrics as arrays in a file."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from instdisc_core.validation import require


def stateful(
    callbacks: Iterable[keras.callbacks.Callback],
) -> Iterator[tuple[str, keras.callbacks.Callback]]:
    """The callbacks that have a state, each with a name for it."""
    counts = Counter[str]()
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            name = type(callback).__name__
            yield f"callback/{name}/{counts[name]}", callback
            counts[name] += 1


def callback_states(callbacks: Iterable[keras.callbacks.Callback]) -> dict[str, np.ndarray]:
    """The states of callbacks, each array below the name of its callback."""
    return {
        f"{name}/{key}": np.asarray(value)
        for name, callback in stateful(callbacks)
        for key, value in callback.get_state().items()
    }


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write an ``.npz`` file without pickle.

    Raises:
        ValueError: an array of Python objects.
    """
    for name, array in arrays.items():
        require(
            not array.dtype.hasobject,
            f"{name} of dtype object in the state of a callback",
            "arrays of numbers or strings, which are saved without pickle",
        )
    np.savez(path, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file, read without pickle."""
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def below(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays below a name, by the rest of their names."""
    start = f"{name}/"
    return {key.removeprefix(start): v for key, v in arrays.items() if key.startswith(start)}
