"""Large arrays in a file of weights, in pieces, so that saving and loading hold one at a time."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

PIECE_BYTES = 2**27


def save_pieces(store: MutableMapping[str, Any], name: str, array: np.ndarray) -> None:
    """Save an array under its name, or in pieces ``name.0``, ``name.1``, ... if it is large.

    Keras copies what it is given to save.

    Args:
        store: what Keras gives to ``save_own_variables``.
        name: of the array, without a point.
        array: ``(n, d)``.

    Example:
    ```python
    from instdisc_core.host_rows import load_pieces, save_pieces

    store = {}
    save_pieces(store, "0", np.zeros((3_000_000, 16), "float32"))
    assert sorted(store) == ["0.0", "0.1"]
    assert load_pieces(store)["0"].shape == (3_000_000, 16)
    ```
    """
    size = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
    if len(array) <= size:
        store[name] = np.array(array)
        return
    for i, start in enumerate(range(0, len(array), size)):
        store[f"{name}.{i}"] = np.array(array[start : start + size])


class Pieces:
    """The pieces of an array, which are read when they are sliced.

    Args:
        store: what Keras gives to ``load_own_variables``.
        names: of the pieces in their order.

    Attributes:
        shape, dtype: of the whole array.

    Example:
    ```python
    from instdisc_core.host_rows import Pieces

    whole = Pieces({"0.0": np.zeros((2, 3)), "0.1": np.ones((1, 3))}, ["0.0", "0.1"])
    assert whole[1:3].sum() == 3
    ```
    """

    def __init__(self, store: Mapping[str, Any], names: list[str]) -> None:
        self._store, self._names = store, names
        self._read: tuple[int, np.ndarray] = (-1, np.zeros(0))
        first, last = self._piece(0), self._piece(len(names) - 1)
        self._size = len(first)
        self.shape = ((len(names) - 1) * self._size + len(last), *first.shape[1:])
        self.dtype = first.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        pieces = []
        while start < stop:
            i, offset = divmod(start, self._size)
            piece = self._piece(i)[offset : offset + stop - start]
            pieces.append(piece)
            start += len(piece)
        return np.concatenate(pieces) if pieces else np.zeros((0, *self.shape[1:]), self.dtype)

    def _piece(self, i: int) -> np.ndarray:
        if self._read[0] != i:
            self._read = (i, np.asarray(self._store[self._names[i]]))
        return self._read[1]


def load_pieces(store: Mapping[str, Any], whole: bool = True) -> dict[str, Any]:
    """What a store holds, by name.

    Args:
        store: what Keras gives to ``load_own_variables``.
        whole: whether to join pieces to arrays; else they are ``Pieces``.

    Returns:
        Dict from name to array or Pieces.

    Example:
    ```python
    from instdisc_core.host_rows import load_pieces

    whole = load_pieces({"0.0": np.zeros((2, 3)), "0.1": np.ones((1, 3))})["0"]
    ```
    """
    keys: dict[str, list[str]] = {}
    for key in store.keys():  # noqa: SIM118
        keys.setdefault(key.partition(".")[0], []).append(key)
    found: dict[str, Any] = {}
    for name, own in keys.items():
        if own == [name]:
            found[name] = np.asarray(store[name])
        else:
            pieces = Pieces(store, sorted(own, key=lambda key: int(key.partition(".")[2])))
            found[name] = pieces[:] if whole else pieces
    return found
