"""The wrappers of several ranks are BankOps like any other, and a sharded start is a whole one."""

import functools

import keras
import numpy as np
import pytest
from devices.threads import OnRanks, on_all, ranks

from instdisc_core import MemoryBank, get_bank_ops, row_storage
from instdisc_core.devices import ShardedBankOps, SplitBankOps, require_equal
from instdisc_core.evaluation import weighted_knn
from instdisc_core.testing import BankOpsConformance


@pytest.mark.on_one_backend  # the methods that they wrap are tested on each
class TestSplit(BankOpsConformance):
    bank_ops = OnRanks(SplitBankOps, 2)


@pytest.mark.on_one_backend
class TestSharded(BankOpsConformance):
    bank_ops = OnRanks(ShardedBankOps, 3)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("n", [7, 9])
def test_a_sharded_bank_starts_with_the_rows_of_one_device(n, dtype):
    whole = MemoryBank(n, 4, dtype=dtype, seed=2)
    own = ranks(3)

    def of_rank(rank):
        bank = MemoryBank(n, 4, dtype=dtype, seed=2, communicator=own[rank], sharded=True)
        assert bank.rows.shape == (n, 4)
        labels = weighted_knn(np.eye(4, dtype="float32"), bank.rows, np.arange(n), k=n)
        assert len(labels) == 4
        assert bank.rows.local.shape[0] in (n // 3, -(-n // 3))
        return bank.bank_ops.dump(bank.rows), keras.ops.convert_to_numpy(bank.lookup([0, n - 1]))

    for stored, rows in on_all(of_rank, 3):
        for part, expected in zip(stored, whole.bank_ops.dump(whole.rows), strict=True):
            np.testing.assert_array_equal(part, expected)
        np.testing.assert_array_equal(rows, keras.ops.convert_to_numpy(whole.lookup([0, n - 1])))


@pytest.mark.framework_independent
def test_the_rows_of_a_rank_are_those_of_the_whole_start(monkeypatch):
    whole = row_storage.random_part((11, 3), 4, slice(0, 11))
    by_four = functools.partial(row_storage.random_unit_rows, block_rows=4)
    monkeypatch.setattr(row_storage, "random_unit_rows", by_four)
    for part in (slice(0, 11), slice(0, 2), slice(3, 5), slice(3, 9), slice(9, 11)):
        rows = row_storage.random_part((11, 3), 4, part)
        np.testing.assert_array_equal(rows, whole[part])


@pytest.mark.framework_independent
def test_fewer_rows_than_ranks_cannot_be_sharded():
    with pytest.raises(ValueError, match=r"a sharded bank of 2 rows on 3 ranks.*sharded=False"):
        ShardedBankOps(get_bank_ops(), ranks(3)[0]).bounds(2)


@pytest.mark.framework_independent
def test_facts_that_differ_name_rank_and_fact():
    own = ranks(3)

    def differ(rank):
        with pytest.raises(ValueError, match=r"on rank 2 seed 1\. Expected 0, as on rank 0"):
            require_equal(own[rank], {"n": 5, "seed": int(rank == 2)})
        require_equal(own[rank], {"n": 5})

    on_all(differ, 3)
