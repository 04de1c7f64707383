"""Loss and gradient of every objective against the float64 reference."""

import keras
import numpy as np
import pytest
from differentiation import losses_and_gradient, numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core import (
    NCE,
    AliasSampler,
    ConstantPartition,
    ExactPartition,
    InfoNCE,
    MemoryBank,
    NonParametricSoftmax,
    ParametricSoftmax,
    UniformSampler,
    cheapest_objective,
    objectives,
    relative_costs,
)
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import problems, temperatures

SHAPES = ((1, 2, 3), (3, 7, 5), (16, 300, 32))
LOG_Z = st.floats(-3, 12)


def bank_of(rows, **kwargs):
    bank = MemoryBank(*rows.shape, **kwargs)
    bank.rows.assign(rows)
    return bank


def agree(actual, expected, temperature):
    """Float32 scores carry an error of about 1e-7, divided by the temperature, in either part."""
    for part, reference_part in zip(actual, expected, strict=True):
        size = 1 + np.abs(reference_part).max()
        np.testing.assert_allclose(
            part, reference_part, rtol=2e-5, atol=2e-6 * size * (1 + 1 / temperature)
        )


@given(problems(SHAPES), temperatures())
def test_non_parametric_softmax(problem, temperature):
    actual = losses_and_gradient(
        NonParametricSoftmax(temperature), problem.features, problem.indices, bank_of(problem.bank)
    )
    expected = reference.softmax(problem.features, problem.indices, problem.bank, temperature)
    agree(actual, expected, temperature)


@given(problems(SHAPES), temperatures(), LOG_Z, st.booleans(), st.booleans())
def test_nce(problem, temperature, log_z, shared, skewed):
    n, batch, m = len(problem.bank), len(problem.indices), 9
    noise = problem.rng.dirichlet(np.full(n, 3.0)) + 1e-3 if skewed else np.ones(n)
    noise /= noise.sum()
    sampler = AliasSampler(noise) if skewed else UniformSampler()
    drawn = problem.negatives(m) if shared else problem.negatives(batch, m)
    objective = NCE(m, temperature, sampler=sampler, partition=ConstantPartition(np.exp(log_z)))
    actual = losses_and_gradient(
        objective, problem.features, problem.indices, bank_of(problem.bank), negatives=drawn
    )
    expected = reference.nce(
        problem.features,
        problem.indices,
        np.broadcast_to(drawn, (batch, m)),
        problem.bank,
        temperature,
        log_z,
        noise,
    )
    agree(actual, expected, temperature)


@given(problems(SHAPES), temperatures(), st.booleans())
def test_info_nce(problem, temperature, shared):
    batch, m = len(problem.indices), 9
    drawn = problem.negatives(m) if shared else problem.negatives(batch, m)
    actual = losses_and_gradient(
        InfoNCE(m, temperature),
        problem.features,
        problem.indices,
        bank_of(problem.bank),
        negatives=drawn,
    )
    negatives = np.broadcast_to(drawn, (batch, m))
    expected = reference.info_nce(
        problem.features, problem.indices, negatives, problem.bank, temperature
    )
    agree(actual, expected, temperature)


@given(problems(SHAPES), temperatures(0.05))
def test_parametric_softmax(problem, temperature):
    """With the bank's rows as weights, it is the exact softmax."""
    objective = ParametricSoftmax(temperature)
    bank = bank_of(problem.bank)
    objective.build(bank.shape)
    objective.w.assign(problem.bank)
    actual = losses_and_gradient(objective, problem.features, problem.indices, bank)
    expected = reference.softmax(problem.features, problem.indices, problem.bank, temperature)
    agree(actual, expected, temperature)


@given(problems(SHAPES), st.sampled_from([0.5, 10.0, 50.0]))
def test_proximal_term(problem, weight):
    bank = bank_of(problem.bank)
    with_term = NonParametricSoftmax(0.1, proximal_weight=weight)
    without = NonParametricSoftmax(0.1)
    batch = (problem.features, problem.indices, bank)
    losses, gradient = losses_and_gradient(with_term, *batch)
    plain_losses, plain_gradient = losses_and_gradient(without, *batch)
    value, slope = reference.proximal(problem.features, problem.indices, problem.bank, weight)
    np.testing.assert_allclose(losses - plain_losses, value, atol=2e-6 * (weight + 20))
    np.testing.assert_allclose(gradient - plain_gradient, slope, atol=2e-6 * (weight + 20))


@given(problems(((1, 40, 8),)), st.sampled_from([0.1, 1.0]), st.sampled_from([1, 6]))
def test_the_mean_of_nce_over_the_noise_is_its_finite_sum(problem, temperature, m):
    """One image n times over, its draws shifted each time, so that every column visits all."""
    n, log_z = len(problem.bank), 3.0
    shifted = (np.arange(n)[:, None] + np.arange(m)) % n
    objective = NCE(m, temperature, partition=ConstantPartition(np.exp(log_z)))
    losses, gradient = losses_and_gradient(
        objective,
        np.repeat(problem.features, n, axis=0),
        np.repeat(problem.indices, n),
        bank_of(problem.bank),
        negatives=shifted,
    )
    actual = losses.mean(keepdims=True), gradient.mean(axis=0, keepdims=True)
    noise = np.full(n, 1 / n)
    expected = reference.expected_nce(
        problem.features, problem.indices, problem.bank, temperature, log_z, noise, m
    )
    agree(actual, expected, temperature)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_nce_gradient_tends_to_the_softmax_gradient_like_one_over_m(temperature):
    """With the true Z_i and noise that visits all instances equally, the error falls like 1/m."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((50, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
    features, indices, n = rows[7:8] * 0.6 + rows[9:10] * 0.8, np.array([7], "int32"), len(rows)
    features = (features / np.linalg.norm(features)).astype("float32")
    bank = bank_of(rows)
    exact = losses_and_gradient(NonParametricSoftmax(temperature), features, indices, bank)[1]
    errors = []
    for repeats in (4, 16, 64):
        objective = NCE(n * repeats, temperature, partition=ExactPartition())
        drawn = np.tile(np.arange(n, dtype="int32"), (1, repeats))
        nce = losses_and_gradient(objective, features, indices, bank, negatives=drawn)[1]
        errors.append(np.linalg.norm(nce - exact))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert errors[-1] < 0.02 * np.linalg.norm(exact)
    np.testing.assert_allclose(ratios, 4, rtol=0.25)


@pytest.mark.parametrize("exclude_positive", [False, True])
def test_the_log_z_that_nce_stores_is_the_reference_s(exclude_positive):
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((30, 4))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
    features, indices = rows[:3][::-1].copy(), np.arange(3, dtype="int32")
    objective = NCE(5, 0.5, sampler=UniformSampler(exclude_positive))
    negatives = rng.integers(3, 30, (3, 5)).astype("int32")
    losses_and_gradient(objective, features, indices, bank_of(rows), negatives=negatives)
    s = np.einsum("bd,bkd->bk", features, rows[negatives], dtype="float64") / 0.5
    own = np.exp((features * rows[:3]).sum(axis=1, dtype="float64") / 0.5)
    z = np.exp(s).mean(axis=1) * (29 if exclude_positive else 30) + exclude_positive * own
    np.testing.assert_allclose(numpy(objective.partition.log_z), np.log(z.mean()), rtol=1e-5)
    if not exclude_positive:
        noise = np.full(30, 1 / 30)
        again = reference.sampled_log_z(features, negatives, rows, 0.5, noise)
        np.testing.assert_allclose(np.log(z.mean()), again, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["nce", "non_parametric_softmax", "info_nce", "parametric_softmax"]
)
def test_evaluation_repeats_itself_and_moves_nothing(name):
    objective = objectives.get(name, seed=3)
    bank = MemoryBank(50, 8, seed=0)
    objective.build(bank.shape)
    batch = (numpy(bank.rows)[:4].astype("float32"), np.arange(4, dtype="int32"), bank)
    losses_and_gradient(objective, *batch)
    before = [numpy(v) for v in [*objective.variables, *bank.variables]]
    first = losses_and_gradient(objective, *batch, training=False)
    second = losses_and_gradient(objective, *batch, training=False)
    np.testing.assert_array_equal(first[0], second[0])
    for variable, value in zip([*objective.variables, *bank.variables], before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


def test_training_draws_fresh_noise_that_a_seed_repeats():
    bank = MemoryBank(500, 8, seed=0)
    batch = (numpy(bank.rows)[:4].astype("float32"), np.arange(4, dtype="int32"), bank)
    runs = []
    for _ in range(2):
        objective = NCE(20, 0.5, seed=11)
        runs.append([losses_and_gradient(objective, *batch)[0] for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


def test_half_precision_features_give_float32_losses():
    bank = MemoryBank(20, 8, seed=0)
    features = keras.ops.cast(numpy(bank.rows)[:4], "float16")
    losses = NonParametricSoftmax(0.02)(features, np.arange(4), bank)
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    assert np.all(np.isfinite(numpy(losses)))


@pytest.mark.parametrize(
    "objective",
    [
        NCE(7, 0.2, 3.0, AliasSampler([1, 2, 3]), ExactPartition(5), shared_negatives=True),
        InfoNCE(9, 0.3, sampler=UniformSampler(exclude_positive=True), shared_negatives=False),
        NonParametricSoftmax(0.4, 2.0),
        ParametricSoftmax(0.5, seed=4),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_configuration_survives_a_round_trip(objective):
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(objective)
    assert keras.saving.serialize_keras_object(again) == config


def test_parametric_softmax_trains_its_weights():
    bank = MemoryBank(6, 3, seed=0)
    objective = ParametricSoftmax(0.5, seed=0)
    objective.build(bank.shape)
    assert [v.shape for v in objective.trainable_variables] == [(6, 3)]
    assert not NCE(4).trainable_variables


def test_the_cheapest_objective_is_the_one_with_the_least_work():
    names = [cheapest_objective(n) for n in (1_000, 8_000, 20_000, 10_000_000)]
    assert names == ["non_parametric_softmax", "non_parametric_softmax", *2 * ["shared_nce"]]
    assert cheapest_objective(1_000, num_negatives=1, batch_size=400) == "nce"
    costs = relative_costs(500, 99, 100, device={"nce": 10.0, "shared_nce": 2.0})
    assert costs == pytest.approx({"non_parametric_softmax": 1, "nce": 2, "shared_nce": 0.796})
    assert relative_costs(10_000, 499, 1000)["nce"] == pytest.approx(0.7)
    assert relative_costs(10_000, 499, 1001)["shared_nce"] == pytest.approx(0.3)
    for name in costs:
        assert objectives.get(name).temperature == 0.07
    assert objectives.get("shared_nce").shared_negatives


@pytest.mark.parametrize("device", ["abacus", {"nce": 1.0}, {}, ["cpu"], None])
def test_costs_of_an_unknown_device_are_not_guessed(device):
    with pytest.raises(ValueError, match=r"Received: device=.*python -m benchmarks\.objectives"):
        relative_costs(10, device=device)


@pytest.mark.parametrize("cost", [-1.0, 0.0, np.nan, "one"])
def test_costs_of_a_device_are_numbers_above_0(cost):
    with pytest.raises(ValueError, match=r"Received: nce=.*Expected a number"):
        relative_costs(10, device={"nce": cost, "shared_nce": 1.0})
