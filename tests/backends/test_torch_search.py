"""Both ways to search find what a search in float64 finds, wherever that is hard."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.testing.strategies import unit_rows

if keras.backend.backend() != "torch":
    pytest.skip("needs the torch backend", allow_module_level=True)

import torch

from instdisc_core import QuantizedRows
from instdisc_torch import TorchBankOps, bank_ops, few_queries, search

# PyTorch 2.11 warns that its profiler forgets what it measured before, which is nothing.
FORGETS = pytest.mark.filterwarnings("ignore:Warning. Profiler clears:UserWarning")


@pytest.fixture(autouse=True, scope="module")
def on_a_cpu():
    """Where both ways run."""
    with keras.device("cpu"):
        yield


@pytest.fixture
def screens(monkeypatch):
    """As if these were too many queries to score every row."""
    monkeypatch.setattr(bank_ops, "FEW_QUERIES", 0)
    monkeypatch.setattr(bank_ops, "FEW_SCORES", 0)


def rows_of(kind, n, dim, queries, rng):
    """Banks that make the screen work: few hits, many hits, only hits, scores of either sign."""
    rows = unit_rows(rng, n, dim)
    if kind == "ever better":
        rows = rows[np.argsort(rows @ queries[0])]
    elif kind == "all the same":
        rows[:] = rows[0]
    elif kind == "nearly the same":
        rows = rows[:1] + 1e-4 * rows
    elif kind == "all opposed":
        rows = -np.abs(rows) * np.sign(queries[0])
    elif kind == "better by less than bfloat16 tells":
        rows -= (rows @ queries[0] / (queries[0] @ queries[0]))[:, None] * queries[0]
        rows += 1e-3 * rng.standard_normal((n, 1)) * queries[0]
    elif kind == "of many lengths":
        rows *= np.exp(rng.normal(size=(n, 1))).astype("float32")
    return np.ascontiguousarray(rows, dtype="float32")


KINDS = (
    "better by less than bfloat16 tells",
    "random",
    "ever better",
    "all the same",
    "nearly the same",
    "all opposed",
    "of many lengths",
)


@given(
    kind=st.sampled_from(KINDS),
    low=st.sampled_from([torch.bfloat16, torch.float32]),
    n=st.sampled_from([1, 7, 600, 5000]),
    count=st.sampled_from([1, 3, 33]),
    dim=st.sampled_from([1, 5, 64]),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_float64_finds(kind, low, n, count, dim, share, seed):
    rng = np.random.default_rng(seed)
    queries = 3 * unit_rows(rng, count, dim)
    rows = rows_of(kind, n, dim, queries, rng)
    k = max(1, int(share * min(n, 300)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "screening_dtype", lambda: low)
        scores, indices = search.top_k(
            torch.tensor(queries), lambda a, b: torch.tensor(rows[a:b]), n, k, block_rows=64
        )
    assert_best(scores, indices, queries, rows, k)


def assert_best(scores, indices, queries, rows, k):
    """Scores and indices are those of the ``k`` best rows, up to the rounding of float32."""
    s = queries.astype("float64") @ rows.T.astype("float64")
    assert scores.shape == indices.shape == (len(queries), k)
    assert all(len(set(row)) == k for row in indices.tolist())
    largest = np.abs(rows).max() * np.abs(queries).max() * rows.shape[1]
    close = {"rtol": 1e-5, "atol": 1e-6 * largest}
    np.testing.assert_allclose(scores, np.take_along_axis(s, indices.numpy(), axis=1), **close)
    np.testing.assert_allclose(scores, -np.sort(-s, axis=1)[:, :k], **close)


@given(
    kind=st.sampled_from(KINDS),
    stored=st.sampled_from(["float32", "int8"]),
    n=st.sampled_from([1, 7, 600, 5000]),
    count=st.sampled_from([1, 3, 9]),
    dim=st.sampled_from([1, 5, 64]),
    share=st.floats(0, 1),
    block_rows=st.sampled_from([64, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_few_queries_find_what_float64_finds(kind, stored, n, count, dim, share, block_rows, seed):
    rng = np.random.default_rng(seed)
    queries = 3 * unit_rows(rng, count, dim)
    rows = rows_of(kind, n, dim, queries, rng)
    k = max(1, int(share * min(n, 300)))
    quantized = None
    if stored == "int8":
        quantized = QuantizedRows.of(torch.tensor(rows))
        rows = (quantized.values * quantized.scale).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_queries, "SCORES", 2 * n)
        patch.setattr(few_queries, "GROUP_ROWS", 16)
        patch.setattr(few_queries, "integer_products", lambda dim, queries: dim > 1)
        found = few_queries.top_k(
            torch.tensor(queries), lambda a, b: torch.tensor(rows[a:b]), n, k, block_rows, quantized
        )
    assert_best(*found, queries, rows, k)


@pytest.mark.parametrize("kind", ["random", "nearly the same"])
def test_products_of_integers_leave_few_rows_or_are_not_used(monkeypatch, kind):
    monkeypatch.setattr(few_queries, "integer_products", lambda dim, queries: True)
    rng = np.random.default_rng(0)
    queries = unit_rows(rng, 2, 64)
    bank = QuantizedRows.of(torch.tensor(rows_of(kind, 50_000, 64, queries, rng)))
    found = few_queries._top_k_of_integers(torch.tensor(queries), *bank, 10)
    assert (found is not None) == (kind == "random")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [3, 4999])
@pytest.mark.parametrize("count", [1, 9])
def test_few_queries_and_a_row_that_is_not_finite(value, at, count):
    rng = np.random.default_rng(0)
    rows, queries = unit_rows(rng, 5000, 16), np.abs(unit_rows(rng, count, 16))
    best = np.argsort(-(queries @ rows.T), axis=1)[:, :4].tolist()
    rows[at] = value
    found = TorchBankOps().top_k(torch.tensor(queries), torch.tensor(rows), 4)[1].tolist()
    assert found == [[at, *(i for i in theirs if i != at)][:4] for theirs in best]


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float32])
def test_few_rows_are_scored_in_float32(screens, monkeypatch, low):
    """Or the screen would be of no use: after the first block a small share passes."""
    monkeypatch.setattr(search, "screening_dtype", lambda: low)
    rng = np.random.default_rng(0)
    queries, rows = torch.tensor(unit_rows(rng, 65, 32)), torch.tensor(unit_rows(rng, 50_000, 32))
    scored = []

    def product(left, right, starts, columns):
        scored.append(len(columns))
        return search_product(left, right, starts, columns)

    search_product = search.sampled_product
    monkeypatch.setattr(search, "sampled_product", product)
    TorchBankOps().top_k(queries, rows, 10)
    assert 0 < sum(scored) < 64 * 50_000 / 100


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [3, 3000])
def test_a_row_that_is_not_finite_is_found_and_hides_no_other(screens, monkeypatch, low, value, at):
    monkeypatch.setattr(search, "screening_dtype", lambda: low)
    monkeypatch.setattr(TorchBankOps, "search_rows", 64)
    rng = np.random.default_rng(0)
    rows, queries = unit_rows(rng, 5000, 16), np.abs(unit_rows(rng, 33, 16))
    best = np.argsort(-(queries @ rows.T), axis=1)[:, :4].tolist()
    rows[at] = value
    found = TorchBankOps().top_k(torch.tensor(queries), torch.tensor(rows), 4)[1].tolist()
    assert found == [[at, *(i for i in theirs if i != at)][:4] for theirs in best]


@FORGETS
def test_rows_in_the_order_of_their_scores_take_no_more_memory():
    rng = np.random.default_rng(0)
    queries, rows = unit_rows(rng, 500, 16), unit_rows(rng, 100_000, 16)
    rows = torch.tensor(rows[np.argsort(rows @ queries[0])])
    with torch.profiler.profile(profile_memory=True) as profile:
        TorchBankOps().top_k(torch.tensor(queries), rows, 5)
    assert max(event.cpu_memory_usage for event in profile.events()) < 500 * 100_000 * 4 / 5


def test_no_queries():
    scores, indices = TorchBankOps().top_k(torch.zeros(0, 4), torch.eye(4), 2)
    assert scores.shape == indices.shape == (0, 2)


@FORGETS
def test_searching_holds_few_scores():
    queries, rows = (
        torch.zeros(100, 16),
        torch.tensor(unit_rows(np.random.default_rng(0), 200_000, 16)),
    )
    with torch.profiler.profile(profile_memory=True) as profile:
        TorchBankOps().top_k(queries + rows[0], rows, 5)
    assert max(event.cpu_memory_usage for event in profile.events()) < 100 * 200_000 * 4 / 4
