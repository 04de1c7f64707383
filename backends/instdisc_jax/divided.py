"""The primitives over a bank whose rows are divided among devices: each works on its own rows.

Left to itself, XLA moves the bank: it adds every block that ``attend`` reads up over all devices.
Here what devices exchange has the size of the arguments and of the result.
"""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from instdisc_core import BankOps
from instdisc_core.types import Attention, SearchResult


class Division(NamedTuple):
    """How a bank is divided: into equal parts, in the order of its rows.

    Attributes:
        mesh: of the devices.
        axes: the names of the axes of the mesh along which the parts are.
        num_rows: rows of the bank, without those that fill the last parts.
        held: rows of a part.
    """

    mesh: Mesh
    axes: tuple[str, ...]
    num_rows: int
    held: int

    @property
    def is_padded(self) -> bool:
        """Whether the last parts hold rows that are not of the bank."""
        return self.num_rows < self.held * devices_along(self.mesh, self.axes)


def on_own_rows(division: Division, ops: BankOps, name: str, bank: Any, **given: Any) -> Any:
    """A method of ``Part`` on every device; all of them return the result for the whole bank.

    Args:
        division: of the bank.
        ops: whose block sizes to use.
        name: of the method.
        bank: its arrays.
        given: the other arguments. Every device gets all of an array.
    """
    if name in ("scores", "combine") and given["indices"].ndim == 1:
        batch = given["features" if name == "scores" else "weights"].shape[0]
        if bank.shape[1] < batch:  # the rows are smaller than what is computed from them
            chosen = on_own_rows(division, ops, "rows", bank, indices=given["indices"])
            given["indices"] = jnp.arange(len(given["indices"]))
            return getattr(BankOps(), name)(bank=chosen, **given)
    arrays = {key: x for key, x in given.items() if not isinstance(x, int)}
    others = {key: x for key, x in given.items() if isinstance(x, int)}

    def body(own: Any, arrays: dict[str, Any]) -> Any:
        return getattr(Part(division, ops), name)(bank=own, **arrays, **others)

    return _mapped(division, body, returns_part=name == "overwritten")(bank, arrays)


def _mapped(division: Division, body: Callable[..., Any], returns_part: bool) -> Callable[..., Any]:
    """``body`` on every device, with its part of the first argument and all of the second."""
    own, all_of_it = PartitionSpec(division.axes), PartitionSpec()
    return jax.shard_map(
        body,
        mesh=division.mesh,
        in_specs=(own, all_of_it),
        out_specs=own if returns_part else all_of_it,
        axis_names=set(division.axes),
        check_vma=False,
    )


def devices_along(mesh: Mesh, axes: tuple[str, ...]) -> int:
    """The number of devices along axes of a mesh."""
    return math.prod(mesh.shape[name] for name in axes)


def division_of(bank: Any) -> Division | None:
    """How a bank is divided; None if every device has all of it, and for arrays that are traced.

    The layout of a variable is known also while a step is traced.
    """
    table = keras.tree.flatten(bank)[0]
    layout = table._layout if isinstance(table, keras.Variable) else _sharding(table)
    layout = getattr(layout, "backend_layout", layout)
    axes = _first_axes(layout)
    if not axes or devices_along(layout.mesh, axes) == 1:
        return None
    num_rows = getattr(table, "whole_shape", table.shape)[0]
    return Division(layout.mesh, axes, num_rows, table.shape[0] // devices_along(layout.mesh, axes))


def _first_axes(layout: Any) -> tuple[str, ...]:
    """The axes of the mesh along which the rows of an array are divided; none if it is whole."""
    if not isinstance(layout, NamedSharding) or not layout.spec or layout.spec[0] is None:
        return ()
    first = layout.spec[0]
    return first if isinstance(first, tuple) else (first,)


def _sharding(array: Any) -> Any:
    is_traced = isinstance(array, jax.core.Tracer)
    return None if is_traced else getattr(array, "sharding", None)


class Part(BankOps):
    """The primitives inside ``on_own_rows``, called on the rows that a device holds.

    Every device returns the result for the whole bank.

    Args:
        division: of the bank.
        sizes: whose block sizes to use.
    """

    def __init__(self, division: Division, sizes: BankOps) -> None:
        self.division = division
        self.first = jax.lax.axis_index(division.axes) * division.held
        self.count = jnp.clip(division.num_rows - self.first, 0, division.held)
        self.own = _OwnRows(self.count)
        self.own.attend_rows, self.own.search_rows = sizes.attend_rows, sizes.search_rows

    def rows(self, bank: Any, indices: jax.Array) -> Any:
        """See ``BankOps.rows``; as they are stored."""
        mine, own = self._mine(indices)

        def chosen(table: jax.Array) -> jax.Array:
            return self._sum(jnp.where(mine[..., None], table[own], jnp.zeros((), table.dtype)))

        return jax.tree.map(chosen, bank)

    def scores(self, features: jax.Array, bank: Any, indices: jax.Array) -> jax.Array:
        """See ``BankOps.scores``."""
        mine, own = self._mine(indices)
        return self._sum(jnp.where(mine, self.own.scores(features, bank, own), 0.0))

    def combine(self, weights: jax.Array, bank: Any, indices: jax.Array) -> jax.Array:
        """See ``BankOps.combine``."""
        mine, own = self._mine(indices)
        return self._sum(self.own.combine(jnp.where(mine, weights, 0.0), bank, own))

    def attend(self, features: jax.Array, bank: Any, temperature: float) -> Attention:
        """See ``BankOps.attend``: the mean of the devices' mean rows, each with its share of Z."""
        log_z, expected = self.own.attend(features, bank, temperature)
        log_z = jnp.where(self.count > 0, log_z, -jnp.inf)
        largest = jax.lax.pmax(log_z, self.division.axes)
        share = jnp.exp(log_z - largest)
        total = self._sum(share)
        weighted = jnp.where(self.count > 0, share[:, None] * expected, 0.0)
        return Attention(largest + jnp.log(total), self._sum(weighted) / total[:, None])

    def _nearest(self, features: jax.Array, bank: Any, k: int) -> SearchResult:
        if self.division.is_padded:
            return self.top_k_of_first(features, bank, k, jnp.asarray(self.division.num_rows))
        return self._best(*self.own._nearest(features, bank, min(k, self.division.held)), k)

    def top_k_of_first(
        self, features: jax.Array, bank: Any, k: int, count: jax.Array
    ) -> SearchResult:
        """See ``BankOps.top_k_of_first``."""
        count = jnp.clip(count - self.first, 0, self.count)
        held = min(k, self.division.held)
        return self._best(*self.own.top_k_of_first(features, bank, held, count), k)

    def overwritten(
        self, bank: jax.Array, indices: jax.Array, values: jax.Array, moves: jax.Array
    ) -> jax.Array:
        """The device's rows after ``BankOps.update_rows``."""
        mine, own = self._mine(indices)
        outside = self.division.held  # names no row: nothing is written
        where = jnp.where(mine & moves, own, outside)
        return bank.at[where].set(values.astype(bank.dtype), mode="drop")

    def _best(self, scores: jax.Array, own: jax.Array, k: int) -> SearchResult:
        """The ``k`` best of what all devices found; of equal ones the lowest index is first."""
        indices = own + self.first

        def of_all(x: jax.Array) -> jax.Array:
            return jax.lax.all_gather(x, self.division.axes, axis=1, tiled=True)

        best, chosen = jax.lax.top_k(of_all(scores), k)
        indices = jnp.take_along_axis(of_all(indices.astype("int32")), chosen, axis=1)
        return SearchResult(best, indices)

    def _mine(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Which rows the device holds, and where; 0 for those of others."""
        mine = (indices >= self.first) & (indices < self.first + self.count)
        return mine, jnp.where(mine, indices - self.first, 0)

    def _sum(self, x: jax.Array) -> jax.Array:
        return jax.lax.psum(x, self.division.axes)


class _OwnRows(BankOps):
    """The reference, on the first ``count`` rows of a table."""

    def __init__(self, count: jax.Array) -> None:
        self.count = count

    def _stream(self, bank: Any, size: int, step: Callable, state: Any) -> Any:
        def masked(state: Any, rows: Any, positions: Any, repeated: Any) -> Any:
            return step(state, rows, positions, repeated | (positions >= self.count))

        return super()._stream(bank, size, masked, state)


def divided_shape(path: str, shape: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of a table that devices divide: all of them hold as many rows. Else None.

    Args:
        path: of the variable, by which a LayoutMap finds its layout.
        shape: of its rows.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    about = SimpleNamespace(path=path, shape=shape)
    axes = _first_axes(distribution.get_variable_layout(about).backend_layout)
    devices = devices_along(distribution.device_mesh.backend_mesh, axes)
    return None if devices == 1 else (-(-shape[0] // devices) * devices, *shape[1:])


def divided_array(table: keras.Variable, rows: np.ndarray) -> jax.Array:
    """Rows in the layout of a table, with zeros as padding. No device gets more than its part."""
    more = [(0, have - given) for have, given in zip(table.shape, rows.shape, strict=True)]
    stored = np.pad(rows, more).astype(table.dtype)
    layout = getattr(table._layout, "backend_layout", table._layout)
    return jax.make_array_from_callback(stored.shape, layout, lambda part: stored[part])


def host_copy(table: Any) -> np.ndarray:
    """A table of a bank without its padding, read part by part in each of several processes."""
    division = division_of(table)
    value = table.value if isinstance(table, keras.Variable) else table
    if division is None:
        return keras.ops.convert_to_numpy(value)
    if value.is_fully_addressable:
        return keras.ops.convert_to_numpy(value)[: division.num_rows]
    starts = range(0, division.num_rows, division.held)
    parts = [np.arange(s, min(s + division.held, division.num_rows)) for s in starts]
    read = jax.jit(lambda bank, i: on_own_rows(division, BankOps(), "rows", bank, indices=i))
    return np.concatenate([keras.ops.convert_to_numpy(read(value, part)) for part in parts])
