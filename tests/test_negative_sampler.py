"""The noise is distributed as it says, and repeatable."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from instdisc_core import AliasSampler, UniformSampler
from instdisc_core.alias_tables import alias_tables

CHANCE = 1e-4  # of a false alarm, in each test


def draw(sampler, indices, n, m, **kwargs):
    return keras.ops.convert_to_numpy(sampler.sample(indices, n, m, **kwargs))


def fits(drawn, probabilities):
    counts = np.bincount(drawn.ravel(), minlength=len(probabilities))
    assert len(counts) == len(probabilities)
    assert np.all(counts[probabilities == 0] == 0)
    possible = probabilities > 0
    if possible.sum() == 1:
        return True
    return chisquare(counts[possible], probabilities[possible] * drawn.size).pvalue > CHANCE


@pytest.mark.parametrize("shared", [False, True])
def test_uniform(shared):
    sampler = UniformSampler(seed=1)
    drawn = draw(sampler, np.arange(50), 37, 1000, shared=shared)
    assert drawn.shape == ((1000,) if shared else (50, 1000))
    assert fits(drawn, np.full(37, 1 / 37))
    np.testing.assert_allclose(numpy(sampler.log_probabilities(drawn, 37)), -np.log(37))


def test_uniform_without_the_positive():
    sampler = UniformSampler(exclude_positive=True, seed=2)
    drawn = draw(sampler, np.array([0, 4, 9]), 10, 6000)
    for row, positive in zip(drawn, [0, 4, 9], strict=True):
        expected = np.full(10, 1 / 9)
        expected[positive] = 0
        assert fits(row, expected)
    np.testing.assert_allclose(numpy(sampler.log_probabilities(drawn, 10)), -np.log(9))


@pytest.mark.parametrize(
    "weights", [np.ones(20), np.arange(1, 31) ** 2.0, [1.0], np.r_[np.full(40, 1e-3), 5, 9]]
)
def test_alias(weights):
    sampler = AliasSampler(weights, seed=3)
    probabilities = np.asarray(weights) / np.sum(weights)
    drawn = draw(sampler, np.arange(40), len(weights), 1500)
    assert fits(drawn, probabilities)
    assert fits(draw(sampler, np.arange(40), len(weights), 1500, training=False), probabilities)
    log_p = keras.ops.convert_to_numpy(sampler.log_probabilities(drawn, len(weights)))
    np.testing.assert_allclose(log_p, np.log(probabilities)[drawn], rtol=1e-5, atol=1e-6)


def test_weights_of_any_size_are_normalized():
    for largest in (1e308, 1e-308):
        sampler = AliasSampler([largest, largest, largest / 2])
        np.testing.assert_allclose(sampler.probabilities, [0.4, 0.4, 0.2])


@pytest.mark.parametrize("weights", [[1e-320, 1e10], [1e308, 1e-308, 1e308]])
def test_weights_that_vanish_are_rejected(weights):
    with pytest.raises(ValueError, match=r"Received: probabilities from 1e-3.* 1 would be 0"):
        AliasSampler(weights)


@pytest.mark.parametrize("training", [True, False])
def test_alias_draws_slot_and_side_from_different_random_numbers(training, monkeypatch):
    """From the same seed they could depend on each other, in a way that each framework has."""
    seeds = []

    def watched(name):
        original = getattr(keras.random, name)

        def watch(*args, seed, **kwargs):
            generator = isinstance(seed, keras.random.SeedGenerator)
            seeds.append(tuple(seed.state.numpy()) if generator else seed)
            return original(*args, seed=seed, **kwargs)

        return watch

    for name in ("randint", "uniform"):
        monkeypatch.setattr(keras.random, name, watched(name))
    draw(AliasSampler([1.0, 2.0, 3.0], seed=0), np.arange(4), 3, 5, training=training)
    assert len(set(seeds)) == 2


def test_a_biased_draw_would_be_noticed():
    """The chi-square tests above can fail: a quarter of one instance's share is enough."""
    drawn = draw(UniformSampler(seed=4), np.arange(50), 20, 1000)
    biased = np.where(
        (drawn == 3) & (np.arange(drawn.size).reshape(drawn.shape) % 4 == 0), 5, drawn
    )
    assert fits(drawn, np.full(20, 1 / 20))
    assert not fits(biased, np.full(20, 1 / 20))


def of_any_size(n, seed):
    rng = np.random.default_rng(seed)
    return rng.gamma(rng.choice([0.01, 1.0, 50.0]), size=n) + 1e-12


def of_few_sizes(n, seed):
    """Where what one slot lacks ends exactly where the excess of another one does."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, ()) + rng.integers(0, rng.integers(1, 6), n)


@given(
    st.sampled_from([of_any_size, of_few_sizes, lambda n, seed: np.ones(n)]),
    st.integers(1, 300),
    st.integers(0, 2**32 - 1),
)
@example(lambda n, seed: np.array([1, 3, 1, 3]), 4, 0)
@example(lambda n, seed: np.ones(n), 49, 0)  # 49 / 49 is less than 1
def test_alias_tables_hold_the_distribution_exactly(weights, n, seed):
    probabilities = weights(n, seed).astype("float64")
    probabilities[0] += not probabilities.any()
    probabilities /= probabilities.sum()
    threshold, alias = alias_tables(probabilities)
    assert np.all((threshold >= 0) & (threshold <= 1))
    held = (threshold + np.bincount(alias, 1 - threshold, minlength=n)) / n
    np.testing.assert_allclose(held, probabilities, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [UniformSampler, lambda seed: AliasSampler(np.ones(90), seed)])
def test_a_seed_repeats_and_evaluation_does_not_advance_it(make):
    one, other = make(seed=5), make(seed=5)
    first = draw(one, np.arange(4), 90, 30)
    np.testing.assert_array_equal(first, draw(other, np.arange(4), 90, 30))
    evaluated = draw(one, np.arange(4), 90, 30, training=False)
    np.testing.assert_array_equal(evaluated, draw(one, np.arange(4), 90, 30, training=False))
    second = draw(one, np.arange(4), 90, 30)
    np.testing.assert_array_equal(second, draw(other, np.arange(4), 90, 30))
    assert not np.array_equal(first, second)
