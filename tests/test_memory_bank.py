"""The rules of the memory bank."""

from functools import cache

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from models import DIM, SIZE, UNIT, bank_of

from instdisc_core import (
    NCE,
    BankOps,
    MemoryBank,
    embedding_table,
    validation,
)
from instdisc_core.data import ImageArray
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import problems, unit_rows

SHAPES = ((1, 2, 3), (3, 7, 5), (16, 300, 32))


def test_it_starts_from_random_unit_rows():
    rows = numpy(MemoryBank(4000, 3, seed=0).rows)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    # Evenly spread over the sphere: mean 0, covariance I/3, and a uniform height (Archimedes).
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(rows.T), np.eye(3) / 3, atol=0.02)
    np.testing.assert_allclose(np.quantile(rows[:, 0], [0.25, 0.75]), [-0.5, 0.5], atol=0.04)


def test_the_seed_fixes_the_start_and_is_the_same_everywhere():
    rows = numpy(MemoryBank(3, 2, seed=7).rows)
    expected = np.random.default_rng(7).standard_normal((3, 2), dtype="float32")
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_array_equal(rows, expected.astype("float64"))
    assert not np.array_equal(rows, numpy(MemoryBank(3, 2, seed=8).rows))


# How far a stored element may be from what was computed, and a stored row's length from 1.
STORED = {
    "float32": (2e-5, 2e-6),
    "bfloat16": (2e-2, 4e-3),
    "float16": (1e-2, 1e-3),
    "int8": (1e-2, 2e-6),  # a step is the largest element over 127; the scale keeps the length
}


def everything(bank):
    return numpy(bank.lookup(np.arange(bank.num_instances)))


@given(problems(SHAPES), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from(sorted(STORED)))
def test_update_moves_the_named_rows_and_no_other_bit(problem, momentum, dtype):
    bank = bank_of(problem.bank, momentum=momentum, dtype=dtype)
    before = everything(bank)
    indices = problem.rng.integers(0, len(before), len(problem.features))  # some of them twice
    bank.update(indices, problem.features)
    after = everything(bank)
    expected = reference.update(before, indices, problem.features, momentum)
    tolerance, length_tolerance = STORED[dtype]
    np.testing.assert_allclose(after, expected, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=length_tolerance)
    others = np.setdiff1d(np.arange(len(before)), indices)
    np.testing.assert_array_equal(after[others], before[others])


@given(problems(SHAPES))
def test_update_does_not_depend_on_the_order(problem):
    indices = problem.rng.integers(0, len(problem.bank), len(problem.features))
    order = problem.rng.permutation(len(indices))
    one, other = bank_of(problem.bank), bank_of(problem.bank)
    one.update(indices, problem.features)
    other.update(indices[order], problem.features[order])
    np.testing.assert_allclose(numpy(one.rows), numpy(other.rows), atol=1e-6)


@given(problems(SHAPES), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_non_finite_embedding_is_rejected_and_counted(problem, value):
    bank = bank_of(problem.bank)
    features = problem.features.copy()
    features[0, -1] = value
    bank.update(problem.indices, features)
    expected = reference.update(problem.bank, problem.indices[1:], features[1:], 0.5)
    np.testing.assert_allclose(numpy(bank.rows), expected, atol=2e-5)
    np.testing.assert_array_equal(
        numpy(bank.rows)[problem.indices[0]], problem.bank[problem.indices[0]]
    )
    assert int(numpy(bank.rejected_embeddings)) == 1
    assert int(numpy(bank.rejected_indices)) == 0


def test_a_rejected_embedding_leaves_its_duplicate_its_weight():
    bank = MemoryBank(4, 3, seed=0)
    before = numpy(bank.rows)
    good = unit_rows(np.random.default_rng(0), 1, 3)
    bank.update([2, 2], np.concatenate([np.full((1, 3), np.nan, "float32"), good]))
    expected = reference.update(before, [2], good, 0.5)
    np.testing.assert_allclose(numpy(bank.rows), expected, atol=1e-6)


def test_a_batch_of_nothing_usable_moves_nothing():
    bank = MemoryBank(4, 3, seed=0)
    before = numpy(bank.rows)
    bank.update([2, 3], np.full((2, 3), np.nan, "float32"))
    np.testing.assert_array_equal(numpy(bank.rows), before)
    assert int(numpy(bank.rejected_embeddings)) == 2


def test_opposite_embedding_and_row_cancel_and_the_row_stays():
    bank = MemoryBank(4, 3, momentum=0.5, seed=0)
    before = numpy(bank.rows)
    bank.update([1], (-before[1:2]).astype("float32"))
    np.testing.assert_array_equal(numpy(bank.rows), before)


def test_update_after_the_losses_is_the_same_update():
    plain, ordered = MemoryBank(6, 3, seed=0), MemoryBank(6, 3, seed=0)
    features = unit_rows(np.random.default_rng(1), 2, 3)
    plain.update([1, 4], features)
    ordered.update([1, 4], features, after=keras.ops.convert_to_tensor([np.nan, np.inf]))
    np.testing.assert_allclose(numpy(plain.rows), numpy(ordered.rows), atol=1e-6)


@cache
def searched_bank(shape):
    """One bank of each shape: TensorFlow compiles a search for each bank."""
    return MemoryBank(*shape)


@given(problems(SHAPES), st.sampled_from([0.0, 0.4, 1.0]))
def test_search_finds_the_best_rows(problem, share):
    k = max(1, int(share * len(problem.bank)))
    bank = searched_bank(problem.bank.shape)
    bank.rows.assign(problem.bank)
    scores, indices = bank.search(problem.features, k)
    s = problem.features.astype("float64") @ problem.bank.T.astype("float64")
    indices = keras.ops.convert_to_numpy(indices)
    np.testing.assert_allclose(numpy(scores), -np.sort(-s, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(s, indices, axis=1), numpy(scores), atol=1e-6)


def test_lookup_is_the_rows_in_float32():
    bank = MemoryBank(5, 3, dtype="bfloat16", seed=0)
    rows = bank.lookup(np.array([4, 0], "uint8"))
    assert keras.backend.standardize_dtype(rows.dtype) == "float32"
    np.testing.assert_array_equal(numpy(rows), numpy(bank.rows)[[4, 0]])


def test_nothing_in_it_is_trained():
    bank = MemoryBank(5, 3)
    assert not bank.trainable_variables
    assert bank.count_params() == 5 * 3 + 2


@given(problems(SHAPES))
def test_eight_bits_hold_a_row_to_half_a_step_and_its_length(problem):
    lengths = problem.rng.uniform(0.1, 10, (len(problem.bank), 1))
    rows = (problem.bank * lengths).astype("float32")
    held = everything(bank_of(rows, dtype="int8"))
    # Half a step of rounding, and as much again that restoring the length may stretch.
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(held - rows) <= step)
    np.testing.assert_allclose(np.linalg.norm(held, axis=1), lengths[:, 0], rtol=1e-5)


@pytest.mark.parametrize("size", [0, 1e-30, 1e-9, 1.0, 1e30])
def test_eight_bits_hold_rows_of_any_size(size):
    rows = np.float32(size) * np.array([[1, 0.5, -1], [0, 0, 1]], "float32")
    held = everything(bank_of(rows, dtype="int8"))
    np.testing.assert_allclose(held, rows, rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", sorted(STORED))
def test_a_rejected_embedding_changes_no_bit(dtype):
    bank = MemoryBank(300, 24, dtype=dtype, seed=0)
    before = [numpy(v) for v in bank.variables[:-2]]
    for i in range(30):
        bank.update(np.array([i, i + 100]), np.full((2, 24), np.nan, "float32"))
    for variable, value in zip(bank.variables, before, strict=False):
        np.testing.assert_array_equal(numpy(variable), value)
    assert int(numpy(bank.rejected_embeddings)) == 60


def test_eight_bits_take_a_byte_an_element_and_one_scale_a_row():
    bank = MemoryBank(7, 3, dtype="int8")
    assert bank.rows.shape == (7, 3)
    assert bank.rows.dtype == "int8"
    assert keras.backend.standardize_dtype(bank.rows.values.dtype) == "int8"
    assert bank.rows.scale.shape == (7, 1)
    assert bank.count_params() == 7 * 3 + 7 + 2
    assert not bank.trainable_variables


@pytest.mark.parametrize("dtype", sorted(STORED))
def test_configuration_survives_a_round_trip(dtype):
    bank = MemoryBank(5, 3, momentum=0.25, dtype=dtype, seed=9)
    again = MemoryBank.from_config(bank.get_config())
    np.testing.assert_array_equal(everything(again), everything(bank))
    assert again.get_config()["dtype"] == dtype
    assert again.get_config() == bank.get_config()


def test_a_file_with_a_manifest_of_another_length_changes_nothing():
    bank, other = MemoryBank(4, 3, seed=0), MemoryBank(4, 3, seed=1)
    other.manifest = ImageArray(np.zeros((5, 2, 2, 3), "uint8")).manifest
    store: dict = {}
    other.save_own_variables(store)
    before = numpy(bank.rows)
    with pytest.raises(ValueError, match=r"a manifest of 5 images\. Expected one image for each"):
        bank.load_own_variables(store)
    np.testing.assert_array_equal(numpy(bank.rows), before)
    assert bank.manifest is None


@pytest.mark.parametrize("wrong", [-1, SIZE, 2**31 - 1])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_values_that_cannot_be_read_are_left_out_and_counted(wrong, momentum, monkeypatch):
    """As on an accelerator, where reading them would make every step wait."""
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    bank, twin = (MemoryBank(SIZE, DIM, momentum=momentum, seed=0) for _ in range(2))
    indices = np.array([1, wrong, 2], "int32")
    bank.update(indices, UNIT)
    twin.update(indices[[0, 2]], UNIT[[0, 2]])
    np.testing.assert_array_equal(numpy(bank.rows), numpy(twin.rows))
    assert (int(numpy(bank.rejected_indices)), int(numpy(bank.rejected_embeddings))) == (1, 0)
    bank.update([3], np.zeros((1, DIM), "float32"))
    np.testing.assert_array_equal(numpy(bank.rows), numpy(twin.rows))
    assert (int(numpy(bank.rejected_indices)), int(numpy(bank.rejected_embeddings))) == (1, 1)


def test_which_integers_name_a_row(bank):
    for integers in ([0, -1, SIZE], np.array([0, -1, SIZE]), keras.ops.array([0, -1, SIZE])):
        assert numpy(bank.contains(integers)).tolist() == [True, False, False]


def test_an_empty_batch_moves_nothing(bank):
    before = [numpy(variable) for variable in bank.variables]
    bank.update([], np.zeros((0, DIM), "float32"))
    bank.update(np.zeros(0, "int64"), keras.ops.zeros((0, DIM)))
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.mark.parametrize("k", [0, 11, 2.0])
def test_k(bank, k):
    with pytest.raises(ValueError, match=rf"k={k}"):
        bank.search(UNIT, k)


@pytest.mark.parametrize("value", [3e38, 1e20, -3e38])
def test_an_embedding_whose_length_overflows_is_rejected_and_counted(value):
    bank = MemoryBank(SIZE, DIM, seed=0)
    before = numpy(bank.rows)
    bank.update([1, 2], np.array([[value] * 4, [1, 0, 0, 0]], "float32"))
    after = numpy(bank.rows)
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert not np.array_equal(after[2], before[2])
    assert int(numpy(bank.rejected_embeddings)) == 1


def test_a_long_embedding_counts_by_its_direction_and_length():
    bank = MemoryBank(SIZE, DIM, seed=0)
    bank.update([1], np.array([[0, 0, 1e18, 0]], "float32"))
    np.testing.assert_allclose(numpy(bank.rows)[1], [0, 0, 1, 0], atol=1e-6)


class Recording(BankOps):
    """The reference, keeping which rows it was given, and which of them move."""

    def __init__(self):
        self.given = []

    def update_rows(self, bank, indices, rows, moves):
        self.given.append((numpy(indices), numpy(moves)))
        super().update_rows(bank, indices, rows, moves)


@pytest.mark.parametrize("rejected", [0, 1, 2])
def test_an_update_is_given_rows_that_it_moves_and_no_other(rejected):
    """What is rejected joins one that is not: a backend may write every row that it is given."""
    features = UNIT.copy()
    features[rejected] = np.nan
    recording = Recording()
    bank = MemoryBank(SIZE, DIM, seed=0, backend=recording)
    bank.update([5, 6, 7], features)
    (indices, moves) = recording.given[0]
    assert set(indices) == {5, 6, 7} - {5 + rejected}
    assert np.all(moves)


def test_queries_that_are_not_finite(monkeypatch):
    bank = MemoryBank(SIZE, DIM, seed=0)
    queries = UNIT.copy()
    queries[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 rows are not finite: 1\."):
        bank.search(queries, 2)
    for module in (validation, embedding_table):
        monkeypatch.setattr(module, "host_values", lambda array: None)
    scores, indices = bank.search(queries, 2)
    assert np.isnan(numpy(scores)).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert (numpy(indices) == -1).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    expected = MemoryBank(SIZE, DIM, seed=0).search(UNIT[[0, 2]], 2)[1]
    np.testing.assert_array_equal(numpy(indices)[[0, 2]], numpy(expected))


def test_state_has_the_same_names_whatever_was_built_before():
    """So that under PyTorch one bank's ``state_dict`` fits the next."""
    for make in (lambda: MemoryBank(3, 2), lambda: NCE(2)):
        first, second = make(), make()
        assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert MemoryBank(3, 2, name="mine").name == "mine"


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="state_dict is PyTorch's")
def test_a_bank_loads_the_state_of_another():
    first, second = MemoryBank(3, 2, seed=0), MemoryBank(3, 2, seed=1)
    assert not np.array_equal(numpy(first.rows), numpy(second.rows))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(numpy(first.rows), numpy(second.rows))
    NCE(2).load_state_dict(NCE(2).state_dict())
