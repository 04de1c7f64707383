"""Where a table's rows are created: on the device whole, a rank's part of them, or outside."""

from collections.abc import Callable

import keras
import numpy as np

from instdisc_core.bank_ops import Bank, BankOps
from instdisc_core.communicator import Communicator
from instdisc_core.devices import ShardedBankOps, SplitBankOps
from instdisc_core.host_rows import HostRows
from instdisc_core.host_storage import host_rows, random_unit_rows
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.sharded_rows import ShardedRows
from instdisc_core.types import RowStorage, StorageDtype, Tensor
from instdisc_core.validation import require

AddVariable = Callable[[str, Tensor, str], keras.Variable]


def for_ranks(
    bank_ops: BankOps, communicator: Communicator, sharded: bool, storage: RowStorage = None
) -> BankOps:
    """The BankOps for tables of these ranks; itself on one device."""
    distribution = keras.distribution.distribution()
    require(
        storage is None or (communicator.size == 1 and distribution is None),
        f"storage={storage!r} on several devices",
        "one device",
        "Set sharded=True, so that each device stores a part of the rows.",
    )
    require(
        not sharded or communicator.stores_parts,
        "sharded=True with replicas of tf.distribute",
        "a whole bank on each of them: it keeps equal copies of every variable",
        "Set sharded=False, or train on PyTorch or JAX.",
    )
    require(
        not sharded
        or distribution is None
        or isinstance(distribution, keras.distribution.ModelParallel),
        f"sharded=True with {type(distribution).__name__}, which divides no variable",
        "ModelParallel",
        "Set ModelParallel(layout_map=layout_map(device_mesh)), with instdisc_core.layout_map.",
    )
    if communicator.size == 1 or isinstance(bank_ops, (ShardedBankOps, SplitBankOps)):
        return bank_ops
    return (ShardedBankOps if sharded else SplitBankOps)(bank_ops, communicator)


def create_rows(
    add_variable: AddVariable,
    shape: tuple[int, int],
    dtype: StorageDtype,
    seed: int | None,
    bank_ops: BankOps,
    storage: RowStorage = None,
) -> Bank | ShardedRows | HostRows:
    """The variables of a table's rows, which start as random points of the unit sphere.

    Args:
        add_variable: adds a variable with a name, a start and a dtype to the table.
        shape: ``(num_rows, embedding_dim)``.
        dtype: storage of the rows.
        seed: of the start. A rank that stores a part of the rows starts with those of one device.
        bank_ops: a ShardedBankOps stores a part.
        storage: where the rows are, see ``EmbeddingTable``.
    """
    if storage is not None:
        return host_rows(storage, seed, shape, dtype)
    part = slice(0, shape[0])
    if isinstance(bank_ops, ShardedBankOps):
        part = bank_ops.own_part(shape[0])
    rows = random_part(shape, seed, part)
    stored: Bank
    if dtype == "int8":
        values, scale = QuantizedRows.of(rows)
        stored = QuantizedRows(
            add_variable("values", values, "int8"), add_variable("scale", scale, "float32")
        )
        variables = list(stored)
    else:
        stored = add_variable("rows", rows, dtype)
        variables = [stored]
    if not isinstance(bank_ops, ShardedBankOps):
        return stored
    for variable in variables:
        variable.whole_shape = (shape[0], *variable.shape[1:])
    return ShardedRows(stored, part.start, shape[0], bank_ops)


def random_part(shape: tuple[int, int], seed: int | None, part: slice) -> np.ndarray:
    """Some rows of a random table: those of the whole table, which is not held meanwhile.

    Args:
        shape: of the whole table.
        seed: of all rows.
        part: which of them.

    Returns:
        Float32 array ``(part.stop - part.start, embedding_dim)`` of rows of length 1.
    """
    kept = np.empty((part.stop - part.start, shape[1]), "float32")
    start = 0
    for rows in random_unit_rows(seed, (part.stop, shape[1])):
        own = rows[max(0, part.start - start) :]
        first = start + len(rows) - len(own) - part.start
        kept[first : first + len(own)] = own
        start += len(rows)
    return kept
