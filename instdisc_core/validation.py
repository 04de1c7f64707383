"""Checks at the public boundary: what was received, what was expected, how to fix it."""

import warnings
from collections.abc import Collection, Hashable, Sequence
from typing import Any, Literal

import keras
import numpy as np

from instdisc_core.types import Tensor

UNIT_TOLERANCE = 0.02
LOWEST_TEMPERATURE = 1e-6
# PyTorch computes little on unsigned integers. What has no place in the signed type is negative.
WIDER = dict.fromkeys(("int8", "uint8", "int16", "uint16", "uint32"), "int32") | {"uint64": "int64"}
NAMED = 5  # how many rows an error names before it counts the others


class OtherImages(ValueError):
    """Images are not those of a manifest."""


def require(
    condition: bool | np.bool_,
    received: str,
    expected: str,
    remedy: str = "",
    error: type[ValueError] = ValueError,
) -> None:
    """Raise a ValueError unless ``condition``: what was received and expected, and a remedy."""
    if not condition:
        raise error(f"Received: {received}. Expected {expected}. {remedy}".rstrip())


def require_choice(name: str, value: Any, choices: Collection[Any], others: str = "") -> None:
    """Raise unless ``value`` is one of ``choices``; ``others`` says what else is taken."""
    hashable = isinstance(value, Hashable)
    expected = f"one of {', '.join(map(repr, choices))}{others}"
    require(hashable and value in choices, f"{name}={value!r}", expected)


def is_integer(value: Any) -> bool:
    """Whether it is an integer, which a boolean is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def require_count(name: str, value: Any) -> None:
    """Raise unless ``value`` is an integer of at least 1."""
    require(is_integer(value) and value >= 1, f"{name}={value!r}", "an integer >= 1")


def require_size(size: int | Sequence[int] | None) -> tuple[int, int]:
    """Height and width from one integer or a pair, both at least 1."""
    is_pair = isinstance(size, (tuple, list)) and len(size) == 2
    pair: Any = size if is_pair else (size, size)
    height, width = pair
    require_count("size", height)
    require_count("size", width)
    return int(height), int(width)


def require_number(
    name: str,
    value: Any,
    lowest: float,
    highest: float = np.inf,
    *,
    open_below: bool = False,
    open_above: bool = True,
) -> None:
    """Raise unless ``value`` is a finite number in the range given."""
    expected = f"a number in {'(' if open_below else '['}{lowest}, {highest}"
    expected += ")" if open_above else "]"
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    inside = is_number and lowest <= value <= highest and value not in (np.inf, -np.inf)
    inside = inside and not (open_below and value == lowest)
    inside = inside and not (open_above and value == highest)
    require(inside, f"{name}={value!r}", expected)


def require_temperature(temperature: Any) -> None:
    """Raise unless it is a finite number of at least 1e-6.

    The cosines of float32 rows are exact to about 6e-8. Divided by a temperature below 1e-6, they
    would be rounding errors and nothing else.
    """
    require_number("temperature", temperature, LOWEST_TEMPERATURE)


def host_values(array: Tensor) -> np.ndarray | None:
    """The values of ``array`` as NumPy where reading them is free, else None.

    Free means: not traced by a compiler, and in the host's memory. Reading a tensor on an
    accelerator would make every step wait for it.
    """
    if isinstance(array, (np.ndarray, np.generic, list, tuple, int, float)):
        return np.asarray(array)
    try:
        if "cpu" in str(array.device).lower():
            return keras.ops.convert_to_numpy(array)
    except Exception:  # each compiler raises another error; the answer is the same
        pass
    return None


def require_finite(
    name: str, rows: Tensor, indices: Tensor | None = None, unit: str = "rows"
) -> None:
    """Raise unless all rows ``(n, ...)`` are finite: NaN has no neighbors and no distance.

    Args:
        name: what the rows are, for the message.
        rows: array or tensor. It is not checked if its values cannot be read for free, or if it
            is a variable: a memory bank's rows stay finite by themselves.
        indices: what to call each row, ``(n,)``; None is 0, 1, 2, ...
        unit: what a row is, for the message.
    """
    values = host_values(rows)
    if values is None or not values.size:
        return
    wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    called = wrong if indices is None else np.asarray(indices)[wrong]
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    require(
        not len(wrong),
        f"{name} in which {len(wrong)} of {len(values)} {unit} are not finite: "
        f"{', '.join(map(str, called[:NAMED]))}{more}",
        "finite numbers",
        "If all of them are, training diverged. If a few are, look at their images.",
    )


def check_indices(
    indices: Tensor,
    count: int,
    *,
    name: str = "indices",
    ranks: tuple[int, ...] = (1,),
    of: Literal["rows", "images"] = "rows",
    least: int = 0,
) -> Tensor:
    """Return ``indices`` as an integer array; raise unless they are in ``[least, count)``.

    The dtype and the rank are known even while a step is being compiled. The values are checked
    where ``host_values`` can read them. ``of`` says what is numbered, for the message.
    """
    if not hasattr(indices, "dtype"):
        indices = np.asarray(indices)
        indices = indices.astype("int32") if indices.size == 0 else indices
    dtype = keras.backend.standardize_dtype(indices.dtype)
    require(
        keras.backend.is_int_dtype(dtype),
        f"{name} of dtype {dtype}",
        "integers",
        "For a mask, give np.flatnonzero(mask)."
        if dtype == "bool"
        else "Cast them, for example with .astype('int32').",
    )
    require(
        len(indices.shape) in ranks,
        f"{name} of shape {tuple(indices.shape)}",
        " or ".join({1: "shape (batch,)", 2: "shape (batch, num_negatives)"}[r] for r in ranks),
        f"Reshape {name}, for example with .reshape(-1)." if ranks == (1,) else "",
    )
    values = host_values(indices)
    if values is not None and values.size:
        lowest, highest = int(values.min()), int(values.max())
        each, remedy = "image", ""
        if of == "rows":
            each = "row of the memory bank"
            remedy = "Number the images 0, 1, 2, ... in a fixed order"
            more = f", or build the bank with num_instances={highest + 1}."
            remedy += more if lowest >= least else "."
        require(
            lowest >= least and highest < count,
            f"{name} from {lowest} to {highest}",
            f"values in [{least}, {count}), one for each {each}",
            remedy,
        )
    return widened(indices)


def widened(indices: Tensor) -> Tensor:
    """``indices`` in a signed type of 32 or 64 bits; one that is too large becomes negative."""
    dtype = WIDER.get(keras.backend.standardize_dtype(indices.dtype))
    if dtype is None:
        return indices
    is_array = isinstance(indices, (np.ndarray, np.generic))
    return indices.astype(dtype) if is_array else keras.ops.cast(indices, dtype)


def check_features(
    features: Tensor, embedding_dim: int, *, unit: bool = False, finite: bool = False
) -> Tensor:
    """Return ``features`` as an array ``(batch, embedding_dim)``; raise or warn if they are not.

    With ``unit=True`` rows whose length is not 1 cause a warning: an objective of unit embeddings
    can be computed on them, but training stalls. With ``finite=True`` NaN and infinities raise.
    """
    features = features if hasattr(features, "dtype") else np.asarray(features, "float32")
    require(
        len(features.shape) == 2 and features.shape[1] == embedding_dim,
        f"features of shape {tuple(features.shape)}",
        f"shape (batch, {embedding_dim}), one embedding in each row",
    )
    dtype = keras.backend.standardize_dtype(features.dtype)
    require(
        keras.backend.is_float_dtype(dtype), f"features of dtype {dtype}", "floating-point numbers"
    )
    values = host_values(features)
    if values is None or not values.size:
        return features
    norms = np.linalg.norm(values.astype("float64"), axis=1)
    require(
        not np.any(norms == 0),
        f"features in which {int(np.sum(norms == 0))} of {len(norms)} rows are all zero",
        "rows of length 1",
        "A zero row has no direction: look at the encoder's last layer.",
    )
    if finite:
        require_finite("features", values)
    norms = norms[np.isfinite(norms)]
    if unit and norms.size and np.max(np.abs(norms - 1)) > UNIT_TOLERANCE:
        warnings.warn(
            f"Received: features with row lengths from {norms.min():.3g} to {norms.max():.3g}. "
            "Expected rows of length 1: training stalls without the L2 norm. "
            "Use keras.ops.normalize(features, axis=-1).",
            stacklevel=3,
        )
    return features


def warn_of_small_batch(found: str, needed: int, why: str) -> None:
    """Warn of a batch that is too small to learn from; ``why`` is a clause."""
    warnings.warn(
        f"Received: a batch of {found}. Expected at least {needed}: {why}. Use a larger batch, or "
        "drop_remainder=True.",
        stacklevel=3,
    )


def check_paired(indices: Tensor, rows: Tensor, *, name: str = "features") -> None:
    """Raise unless there is one index for each row; ``name`` says what the rows are."""
    counts = indices.shape[0], rows.shape[0]
    require(
        None in counts or counts[0] == counts[1],
        f"{counts[0]} indices and {counts[1]} rows of {name}",
        f"one index for each row of {name}",
    )
