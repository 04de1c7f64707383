"""Each measure of health against its formula, and collapses that are found."""

import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core import MemoryBank, health

seeds = st.integers(0, 2**16)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def random_rows(n, d, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


@given(seeds)
def test_uniformity_pair_by_pair(seed):
    f = random_rows(7, 3, seed)
    pairs = [np.exp(-2 * np.sum((f[i] - f[j]) ** 2)) for i in range(7) for j in range(i)]
    assert health.uniformity(f) == pytest.approx(np.log(np.mean(pairs)))
    assert health.uniformity(np.ones((4, 1))) == pytest.approx(0)


def test_alignment_of_equal_and_of_unrelated_embeddings():
    f = random_rows(4000, 16)
    assert health.alignment(f, f) == 0
    assert health.alignment(f, random_rows(4000, 16, 1)) == pytest.approx(2, abs=0.05)
    with pytest.raises(ValueError, match="one shape"):
        health.alignment(f, f[1:])


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_counts_equal_directions(rank):
    assert health.effective_rank(np.tile(np.eye(rank, 10), (4, 1))) == pytest.approx(rank)


def test_effective_rank_by_its_definition():
    """Singular values 3 and 1: p = (3/4, 1/4)."""
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert health.effective_rank(np.diag([3.0, 1.0])) == pytest.approx(expected)


def test_positive_ranks_count_the_rows_that_are_nearer(monkeypatch):
    monkeypatch.setattr(health, "BLOCK", 4)  # several blocks
    bank = MemoryBank(10, 4, seed=0)
    f, indices = random_rows(10, 4, 1).astype("float32"), np.arange(10)[::-1].copy()
    scores = f @ numpy(bank.rows).T
    expected = [1 + np.sum(scores[i] > scores[i, indices[i]]) for i in range(10)]
    assert health.positive_ranks(f, indices, bank).tolist() == expected
    assert np.all(health.positive_ranks(numpy(bank.rows), np.arange(10), bank) == 1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_has_no_measure(wrong):
    """A NaN compares as smaller than nothing: its own row would be the nearest of all."""
    f = random_rows(10, 4).astype("float32")
    bad = f.copy()
    bad[[0, 3], 1] = wrong
    for measure in (
        lambda: health.uniformity(bad),
        lambda: health.alignment(bad, f),
        lambda: health.alignment(f, bad),
        lambda: health.effective_rank(bad),
        lambda: health.positive_ranks(bad, np.arange(10), MemoryBank(10, 4)),
    ):
        with pytest.raises(ValueError, match=r"in which 2 of 10 rows are not finite: 0, 3\."):
            measure()


def test_neighbor_agreement():
    assert health.neighbor_agreement([[1, 2], [3, 4]], [[2, 1], [3, 5]]) == 0.75


def test_collapses_are_told_apart():
    spread, alike = random_rows(200, 32), unit(random_rows(200, 32) * 0.1 + np.eye(1, 32))
    assert health.detect_collapse(spread) is None
    assert health.detect_collapse(alike) == "all embeddings are alike"
    line = np.zeros((200, 32))
    line[:, 0] = np.where(np.arange(200) % 2, 1, -1)
    assert health.detect_collapse(line) == "the embeddings vary in few dimensions"
    assert health.detect_collapse(random_rows(500, 2)) is None, "a plane is all there is"
    assert health.detect_collapse(random_rows(3, 128)) is None
    spread[3, 3] = np.nan
    assert health.detect_collapse(spread) == "embeddings are not finite"
