"""Finds the installed backends, and loads the BankOps of one."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

import keras

from instdisc_core.bank_ops import Bank, BankOps
from instdisc_core.sharded_rows import ShardedRows

GROUP = "instdisc_core.backends"


def available_backends() -> dict[str, EntryPoint]:
    """The installed backends by name; none is imported.

    Returns:
        Dict from name to entry point. The default for a Keras backend has the name of that
        backend: ``torch``, ``tensorflow``, ``jax``.

    Example: ``sorted(available_backends())  # ['jax', 'tensorflow', 'torch']``
    """
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def get_bank_ops(backend: str | BankOps | None = None) -> BankOps:
    """The BankOps to use.

    Args:
        backend: a name from ``available_backends()``; ``"keras"`` for the reference in Keras
            operations; a BankOps instance, which is returned unchanged; or None for the backend
            with the name of the active Keras backend, or the reference if there is none. An
            explicit choice never falls back to another.

    Returns:
        A BankOps instance.

    Raises:
        ValueError: no backend has that name.
        ImportError: the backend's framework is not installed.
        RuntimeError: the backend serves another Keras backend than the active one.

    Example:
    ```python
    bank = MemoryBank(1000, 128, backend=get_bank_ops("keras"))
    ```
    """
    if isinstance(backend, BankOps):
        return backend
    known = available_backends()
    if backend is None:
        backend = keras.backend.backend() if keras.backend.backend() in known else "keras"
    if backend == "keras":
        return BankOps()
    if backend not in known:
        raise ValueError(
            f"Received: backend={backend!r}. Expected one of {sorted({'keras', *known})}. "
            f"Install one that has an entry point in the group {GROUP!r}."
        )
    loaded = _load(known[backend])
    if loaded.keras_backend not in (None, keras.backend.backend()):
        raise RuntimeError(
            f"Received: backend={backend!r} while Keras runs on {keras.backend.backend()!r}. "
            f"Expected both to be the same. Set KERAS_BACKEND={loaded.keras_backend} in the "
            "environment before keras is imported for the first time."
        )
    return loaded


def bank_ops_for(rows: Bank | ShardedRows, backend: str | BankOps | None = None) -> BankOps:
    """The BankOps that reads these rows: that of a sharded bank, or see ``get_bank_ops``.

    Example:
    ```python
    from instdisc_core.registry import bank_ops_for

    queries = keras.ops.convert_to_tensor(features)
    scores, neighbors = bank_ops_for(bank.rows).top_k(queries, bank.rows, k=3)
    ```
    """
    return rows.bank_ops if isinstance(rows, ShardedRows) else get_bank_ops(backend)


@cache
def _load(entry_point: EntryPoint) -> BankOps:
    """An instance of the backend's class; one for each process."""
    try:
        return entry_point.load()()
    except ImportError as error:
        name = entry_point.name
        distribution = entry_point.dist.name if entry_point.dist else "instdisc-core"
        raise ImportError(
            f"Received: backend={name!r}, whose framework cannot be imported ({error}). "
            f"Expected an installed framework: pip install '{distribution}[{name}]'"
        ) from error
