"""Ranks that are threads of one process, for suites that know one BankOps and no ranks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
from keras import ops

from instdisc_core import BankOps, Communicator, get_bank_ops
from instdisc_core.sharded_rows import ShardedRows, parts

SECONDS = 180  # that a rank waits for the others


class Thread(Communicator):
    """One of several ranks, each in a thread of its own."""

    def __init__(self, rank, size, board, barrier):
        self.rank = self.process = rank
        self.size = self.processes = size
        self._board, self._barrier = board, barrier

    def exchange(self, message):
        self._board[self.rank] = message
        self._barrier.wait(SECONDS)
        messages = list(self._board)
        self._barrier.wait(SECONDS)
        return messages

    def sizes(self, x):
        return self.exchange(x.shape[0])

    def all_gather(self, x, sizes=None):
        gathered = self.exchange(x)
        assert sizes is None or [part.shape[0] for part in gathered] == list(sizes)
        return ops.concatenate(gathered)

    def all_reduce(self, x, op="sum"):
        reduce = ops.max if op == "max" else ops.sum
        return reduce(ops.stack(self.exchange(x)), axis=0)


def ranks(size):
    """The communicators of so many ranks."""
    board, barrier = [None] * size, threading.Barrier(size)
    return [Thread(rank, size, board, barrier) for rank in range(size)]


def on_all(function, size):
    """``function(rank)`` of each rank at the same time: the results in their order."""
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, range(size)))


class OnRanks(BankOps):
    """Runs each method on several ranks, which must agree, and returns what they returned.

    Args:
        wrapper: ``SplitBankOps`` or ``ShardedBankOps``.
        size: number of ranks.
    """

    def __init__(self, wrapper, size):
        self.of_ranks = [wrapper(get_bank_ops(), own) for own in ranks(size)]

    def rows(self, bank, indices):
        return self._run("rows", bank, lambda own: (own, indices))

    def scores(self, features, bank, indices):
        return self._run("scores", bank, lambda own: (features, own, indices))

    def combine(self, weights, bank, indices):
        return self._run("combine", bank, lambda own: (weights, own, indices))

    def attend(self, features, bank, temperature):
        return self._run("attend", bank, lambda own: (features, own, temperature))

    def top_k(self, features, bank, k):
        return self._run("top_k", bank, lambda own: (features, own, k))

    def dump(self, bank):
        return self._run("dump", bank, lambda own: (own,))

    def load(self, bank, arrays):
        self._run("load", bank, lambda own: (own, arrays))

    def update_rows(self, bank, indices, rows, moves):
        self._run("update_rows", bank, lambda own: (own, indices, rows, moves))

    def _run(self, name, bank, arguments):
        banks = [self._of_rank(own, bank) for own in self.of_ranks]

        def call(rank):
            own = self.of_ranks[rank]
            with own.divided():
                return getattr(own, name)(*arguments(banks[rank]))

        found = on_all(call, len(banks))
        for own in banks:
            self._put_back(bank, own)
        first, *others = ([numpy(x) for x in keras.tree.flatten(one)] for one in found)
        for other in others:
            for a, b in zip(first, other, strict=True):
                np.testing.assert_array_equal(a, b)
        return found[0]

    def _of_rank(self, own, bank):
        """What a rank stores: a bank with as few rows as one is not sharded."""
        size = len(self.of_ranks)
        if not hasattr(own, "own_part") or bank.shape[0] < size:
            return bank
        part = own.own_part(bank.shape[0])
        stored = [
            keras.Variable(ops.convert_to_tensor(v)[part], dtype=v.dtype, trainable=False)
            for v in parts(bank)
        ]
        local = stored[0] if len(stored) == 1 else type(bank)(*stored)
        return ShardedRows(local, part.start, bank.shape[0], own)

    def _put_back(self, bank, own):
        if isinstance(own, ShardedRows):
            for variable, part in zip(parts(bank), parts(own), strict=True):
                if isinstance(variable, keras.Variable):
                    whole = numpy(variable).copy()
                    whole[own.start : own.stop] = numpy(part)
                    variable.assign(whole)


def numpy(x):
    return ops.convert_to_numpy(x)
