"""The suite that every BankOps must pass, the reference included."""

from functools import cache

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from instdisc_core.bank_ops import Bank, BankOps
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import SHAPES, Problem, problems
from instdisc_core.types import Attention, SearchResult, Tensor

FLOATS = ("float32", "bfloat16", "float16")
STORED_AS = (*FLOATS, "int8")
# Some frameworks compile for each of these. Every dtype, and every way through the rows: one row,
# one block, several blocks. Rows per image: one, and more than the smaller banks have. Shares of
# the rows to search for: one row, and all of them, up to 300.
ONE_ROW, ONE_BLOCK, BLOCKS = SHAPES
CASES = (
    (ONE_ROW, "float32"),
    *((ONE_BLOCK, dtype) for dtype in STORED_AS),
    (BLOCKS, "float32"),
    (BLOCKS, "int8"),
)
COUNTS = st.sampled_from([1, 700])
SHARES = st.sampled_from([0.0, 1.0])
TEMPERATURES = st.sampled_from([0.01, 10.0])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Problem, str]:
    """A problem, and the dtype in which its bank is stored."""
    shape, dtype = draw(st.sampled_from(CASES))
    return draw(problems((shape,))), dtype


class BankOpsConformance:
    """Subclass it, set ``bank_ops``, and let pytest collect it.

    Every method is compared with the float64 reference, on banks stored in each dtype. The
    reference gets the rows as they are stored, after rounding, so that the tolerance covers
    arithmetic alone.

    Attributes:
        bank_ops: the BankOps instance under test.
        tolerance: largest error allowed in a score or a sum of unit rows. In log Z an error of a
            score is divided by the temperature, so the tolerance is too.

    Example:
    ```python
    from instdisc_core.testing import BankOpsConformance

    class TestReference(BankOpsConformance):
        bank_ops = BankOps()
    ```
    """

    bank_ops: BankOps
    tolerance = 3e-6

    @given(cases(), COUNTS)
    def test_scores_of_own_rows(self, case: tuple[Problem, str], count: int) -> None:
        """``(B, K)`` indices: other rows for each image."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        indices = problem.negatives(len(problem.indices), count)
        scores = self.bank_ops.scores(_tensor(problem.features), bank, _tensor(indices))
        expected = np.einsum("bd,bkd->bk", problem.features.astype("float64"), rows[indices])
        self._close(scores, expected)

    @given(cases(), COUNTS)
    def test_scores_of_shared_rows(self, case: tuple[Problem, str], count: int) -> None:
        """``(K,)`` indices: the same rows for every image."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        indices = problem.negatives(count)
        scores = self.bank_ops.scores(_tensor(problem.features), bank, _tensor(indices))
        self._close(scores, problem.features.astype("float64") @ rows[indices].T)

    @given(cases(), COUNTS, st.booleans())
    def test_combine(self, case: tuple[Problem, str], count: int, shared: bool) -> None:
        """Weighted sums of rows, own and shared."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        batch = len(problem.indices)
        indices = problem.negatives(count) if shared else problem.negatives(batch, count)
        weights = problem.rng.standard_normal((batch, count)).astype("float32") / count
        combined = self.bank_ops.combine(_tensor(weights), bank, _tensor(indices))
        gathered = np.broadcast_to(rows[indices], (batch, count, rows.shape[1]))
        self._close(combined, np.einsum("bk,bkd->bd", weights.astype("float64"), gathered))

    @given(cases(), TEMPERATURES)
    def test_attend(self, case: tuple[Problem, str], temperature: float) -> None:
        """The softmax over the bank, at low and high temperatures."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        log_z, expected_row = self.bank_ops.attend(_tensor(problem.features), bank, temperature)
        expected = reference.attend(problem.features, rows, temperature)
        assert keras.backend.standardize_dtype(log_z.dtype) == "float32"
        self._close(log_z, expected[0], 1 + 1 / temperature)
        self._close(expected_row, expected[1], 1 + 1 / temperature)

    @given(problems())
    def test_attend_where_exponentials_overflow(self, problem: Problem) -> None:
        """``exp(1 / 0.01)`` overflows float32; here the largest score of every image is 100."""
        bank, rows = _stored(problem.bank, "float32")
        features = problem.bank[problem.indices]
        log_z, expected_row = self.bank_ops.attend(_tensor(features), bank, 0.01)
        expected = reference.attend(features, rows, 0.01)
        self._close(log_z, expected[0], 101)
        self._close(expected_row, expected[1], 101)

    def test_arguments_by_name(self) -> None:
        """The parameters have the names of the contract, and so have the parts of the results."""
        rows, at = _tensor(np.eye(4, 3, dtype="float32")), _tensor(np.zeros((4, 2), "int32"))
        assert self.bank_ops.rows(bank=rows, indices=at).shape == (4, 2, 3)
        assert self.bank_ops.scores(features=rows, bank=rows, indices=at).shape == (4, 2)
        weights = ops.ones((4, 2))
        assert self.bank_ops.combine(weights=weights, bank=rows, indices=at).shape == (4, 3)
        attended = self.bank_ops.attend(features=rows, bank=rows, temperature=1.0)
        assert isinstance(attended, Attention)
        assert (attended.log_z.shape, attended.expected_row.shape) == ((4,), (4, 3))
        found = self.bank_ops.top_k(features=rows, bank=rows, k=2)
        assert isinstance(found, SearchResult)
        assert found.scores.shape == found.indices.shape == (4, 2)

    @given(cases())
    def test_transposed_inputs(self, case: tuple[Problem, str]) -> None:
        """Features and tables whose memory is not in the order of their elements."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        features = ops.transpose(_tensor(np.ascontiguousarray(problem.features.T)))
        indices = problem.negatives(len(problem.indices), 3)
        log_z, expected_row = self.bank_ops.attend(features, bank, 0.5)
        expected = reference.attend(problem.features, rows, 0.5)
        self._close(log_z, expected[0], 3)
        self._close(expected_row, expected[1], 3)
        scores = np.einsum("bd,bkd->bk", problem.features.astype("float64"), rows[indices])
        self._close(self.bank_ops.scores(features, bank, _tensor(indices)), scores)
        table = ops.transpose(_tensor(np.ascontiguousarray(problem.bank.T)))
        self._close(self.bank_ops.scores(features, table, _tensor(indices)), scores, 4e3)
        log_z, _ = self.bank_ops.attend(features, table, 0.5)
        self._close(log_z, reference.attend(problem.features, problem.bank, 0.5)[0], 3)

    @given(cases(), st.booleans())
    def test_rows(self, case: tuple[Problem, str], own: bool) -> None:
        """Chosen rows in float32, for indices ``(K,)`` and ``(B, K)``."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        shape = (len(problem.indices), 3) if own else (5,)
        indices = problem.negatives(*shape)
        found = self.bank_ops.rows(bank, _tensor(indices))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        self._close(found, rows[indices])

    @given(cases(), st.integers(0, 2**16 - 1))
    def test_update_rows(self, case: tuple[Problem, str], mask: int) -> None:
        """The rows that move are written, also if named twice; all others keep their bits."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        before = self.bank_ops.dump(bank)
        new = problem.features[:, ::-1].copy()
        moves = np.array([bool(mask >> i & 1) for i in range(len(new))])
        twice = [*range(len(new)), 0]
        self.bank_ops.update_rows(
            bank, _tensor(problem.indices[twice]), _tensor(new[twice]), _tensor(moves[twice])
        )
        moved = problem.indices[moves]
        rows[moved] = _stored(new, dtype, 1)[1][moves]
        np.testing.assert_array_equal(_float64(bank), rows)
        for old, part in zip(before, self.bank_ops.dump(bank), strict=True):
            stays = np.setdiff1d(np.arange(len(old)), moved)
            np.testing.assert_array_equal(part[stays], old[stays])

    @given(cases())
    def test_dump_and_load(self, case: tuple[Problem, str]) -> None:
        """``load`` restores bit for bit what ``dump`` returned, in another bank too."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        other, _ = _stored(-problem.bank, dtype, 1)
        self.bank_ops.load(other, self.bank_ops.dump(bank))
        np.testing.assert_array_equal(_float64(other), rows)

    @given(cases(), SHARES)
    def test_top_k(self, case: tuple[Problem, str], share: float) -> None:
        """The k best rows, best first, for k from 1 to n."""
        problem, dtype = case
        bank, rows = _stored(problem.bank, dtype)
        k = max(1, int(share * min(len(rows), 300)))
        scores, indices = self.bank_ops.top_k(_tensor(problem.features), bank, k)
        scores, indices = ops.convert_to_numpy(scores), ops.convert_to_numpy(indices)
        s = problem.features.astype("float64") @ rows.T
        assert scores.shape == indices.shape == (len(problem.features), k)
        assert np.all(np.diff(scores, axis=1) <= 0), "not best first"
        assert all(len(set(row)) == k for row in indices.tolist()), "a row was found twice"
        self._close(scores, np.take_along_axis(s, indices, axis=1))
        self._close(scores, -np.sort(-s, axis=1)[:, :k])

    @given(problems())
    def test_reading_moves_nothing(self, problem: Problem) -> None:
        """Scores, sums, attention and search do not change the bank or the features."""
        bank, rows = _stored(problem.bank, "float32")
        features, indices = _tensor(problem.features), _tensor(problem.indices)
        weights = ops.ones((len(problem.indices), len(problem.indices)))
        self.bank_ops.rows(bank, indices)
        self.bank_ops.scores(features, bank, indices)
        self.bank_ops.combine(weights, bank, indices)
        self.bank_ops.attend(features, bank, 0.5)
        self.bank_ops.top_k(features, bank, 1)
        np.testing.assert_array_equal(_float64(bank), rows)
        np.testing.assert_array_equal(ops.convert_to_numpy(features), problem.features)

    def _close(self, actual: Tensor, expected: np.ndarray, factor: float = 1.0) -> None:
        values = np.asarray(ops.convert_to_numpy(actual), "float64")
        assert values.shape == expected.shape
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=self.tolerance * factor)


def _tensor(array: np.ndarray) -> Tensor:
    return ops.convert_to_tensor(array)


def _stored(array: np.ndarray, dtype: str, number: int = 0) -> tuple[Bank, np.ndarray]:
    """A bank of this dtype, and what it holds in float64.

    The bank of a shape, a dtype and a number is always the same: some frameworks compile for each.
    """
    bank = _bank(array.shape, dtype, number)
    bank.assign(_tensor(array))
    return bank, _float64(bank)


@cache
def _bank(shape: tuple[int, int], dtype: str, number: int) -> keras.Variable | QuantizedRows:
    def table(width: int, dtype: str) -> keras.Variable:
        return keras.Variable(np.zeros((shape[0], width)), dtype=dtype, trainable=False)

    if dtype == "int8":
        return QuantizedRows(table(shape[1], "int8"), table(1, "float32"))
    return table(shape[1], dtype)


def _float64(bank: Bank) -> np.ndarray:
    if isinstance(bank, QuantizedRows):
        return _float64(bank.values) * _float64(bank.scale)
    return ops.convert_to_numpy(ops.cast(bank, "float32")).astype("float64")
