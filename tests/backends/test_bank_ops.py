"""The reference and the active framework's backend pass the suite; broken ones do not."""

import keras
import pytest
from keras import ops

from instdisc_core import BankOps, QuantizedRows, get_bank_ops
from instdisc_core.testing import BankOpsConformance


class TestReference(BankOpsConformance):
    bank_ops = BankOps()


class TestActiveBackend(BankOpsConformance):
    bank_ops = get_bank_ops()


class ForgetsTheLastRow(BankOps):
    def scores(self, features, bank, indices):
        return super().scores(features, bank, indices) * (ops.arange(indices.shape[-1]) > 0)


class IgnoresWeights(BankOps):
    def combine(self, weights, bank, indices):
        return super().combine(ops.ones_like(weights), bank, indices)


class Overflows(BankOps):
    def attend(self, features, bank, temperature):
        p = ops.exp(ops.matmul(features, ops.transpose(ops.cast(bank, "float32"))) / temperature)
        total = ops.sum(p, axis=1)
        return ops.log(total), ops.matmul(p, ops.cast(bank, "float32")) / total[:, None]


class AttendsInHalfPrecision(BankOps):
    def attend(self, features, bank, temperature):
        features = ops.cast(ops.cast(features, "bfloat16"), "float32")
        return super().attend(features, bank, temperature)


class LosesTheScale(BankOps):
    def rows(self, bank, indices):
        if isinstance(bank, QuantizedRows):
            return super().rows(bank.values, indices)
        return super().rows(bank, indices)


class MovesANeighbor(BankOps):
    def update_rows(self, bank, indices, rows, moves):
        super().update_rows(bank, (indices + 1) % bank.shape[0], rows, moves)


class AddsInsteadOfWriting(BankOps):
    def write(self, variable, indices, values):
        variable.assign(ops.scatter_update(variable, indices[:, None], values, "add"))


class MovesAll(BankOps):
    def update_rows(self, bank, indices, rows, moves):
        super().update_rows(bank, indices, rows, ops.ones_like(moves))


class RewritesWhatStays(BankOps):
    """As if the bank wrote back in float32 what it had read."""

    def update_rows(self, bank, indices, rows, moves):
        rows = ops.where(moves[:, None], rows, (1 + 1e-6) * self.rows(bank, indices))
        super().update_rows(bank, indices, rows, ops.ones_like(moves))


class DumpsInHalfPrecision(BankOps):
    def dump(self, bank):
        return [array.astype("float16") for array in super().dump(bank)]


class WorstFirst(BankOps):
    def top_k(self, features, bank, k):
        scores, indices = super().top_k(features, bank, k)
        return ops.flip(scores, axis=1), ops.flip(indices, axis=1)


class NamesNoParts(BankOps):
    def attend(self, features, bank, temperature):
        return tuple(super().attend(features, bank, temperature))


class SearchesOneBlock(BankOps):
    def top_k(self, features, bank, k):
        return super().top_k(features, keras.tree.map_structure(lambda v: v[:19_000], bank), k)


class MovesWhatItReads(BankOps):
    def scores(self, features, bank, indices):
        scores = super().scores(features, bank, indices)
        bank.assign(ops.zeros(bank.shape))
        return scores


BROKEN = (
    (ForgetsTheLastRow, "test_scores_of_own_rows"),
    (ForgetsTheLastRow, "test_scores_of_shared_rows"),
    (IgnoresWeights, "test_combine"),
    (NamesNoParts, "test_arguments_by_name"),
    (Overflows, "test_attend_where_exponentials_overflow"),
    (AttendsInHalfPrecision, "test_attend"),
    (LosesTheScale, "test_rows"),
    (MovesANeighbor, "test_update_rows"),
    (MovesAll, "test_update_rows"),
    (RewritesWhatStays, "test_update_rows"),
    (DumpsInHalfPrecision, "test_dump_and_load"),
    (AddsInsteadOfWriting, "test_update_rows"),
    (WorstFirst, "test_top_k"),
    (SearchesOneBlock, "test_top_k"),
    (MovesWhatItReads, "test_reading_moves_nothing"),
)


@pytest.mark.parametrize(("broken", "test"), BROKEN)
def test_the_suite_catches_a_broken_backend(broken, test):
    """Each fault is found by the test of the primitive that has it."""
    suite = type("Suite", (BankOpsConformance,), {"bank_ops": broken()})()
    with pytest.raises((AssertionError, ExceptionGroup)):
        getattr(suite, test)()


def test_the_active_backend_is_not_the_reference():
    """Or the tests above would compare the reference with itself."""
    assert type(get_bank_ops()) is not BankOps
    assert get_bank_ops().keras_backend == keras.backend.backend()
