"""The policies for Z."""

import math

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import small_model

from instdisc_core import NCE, AliasSampler, MemoryBank
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
    FirstBatches,
    MovingAveragePartition,
)
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

ESTIMATES = [2.0, 7.0, 3.0, 5.0, 4.0]
# The shapes of every step of NCE below: some frameworks compile for each.
N, D, BATCH, NEGATIVES = 40, 6, 4, 250
EVERY_INDEX = np.arange(BATCH * NEGATIVES).reshape(BATCH, NEGATIVES) % N  # equally often
UNIFORM = np.full(N, 1 / N)


def nce(partition, seed=0):
    return NCE(NEGATIVES, 0.5, partition=partition, seed=seed)


def follow(policy, estimates=ESTIMATES, exact=()):
    """The log Z that the policy returns for each batch."""
    exact = iter(exact)
    returned = []
    for estimate in estimates:
        log_z = policy.update(
            keras.ops.convert_to_tensor(np.float32(estimate)),
            lambda: keras.ops.convert_to_tensor(np.float32(next(exact))),
        )
        np.testing.assert_array_equal(numpy(log_z), numpy(policy.log_z))
        returned.append(float(numpy(log_z)))
    return np.array(returned)


@pytest.mark.parametrize("num_batches", [1, 3])
def test_first_batches_averages_z_and_then_stands_still(num_batches):
    expected = [np.log(np.mean(np.exp(ESTIMATES[: min(t, num_batches)]))) for t in range(1, 6)]
    np.testing.assert_allclose(follow(FirstBatches(num_batches)), expected, rtol=1e-5)


def test_moving_average_of_z():
    z, expected = math.exp(ESTIMATES[0]), []
    for t, estimate in enumerate(ESTIMATES):
        z = z if t == 0 else 0.8 * z + 0.2 * math.exp(estimate)
        expected.append(math.log(z))
    np.testing.assert_allclose(follow(MovingAveragePartition(0.8)), expected, rtol=1e-5)


def test_constant():
    np.testing.assert_allclose(follow(ConstantPartition(123.0)), np.log(123.0), rtol=1e-5)


def test_exact_takes_the_exact_one_when_it_is_due_and_computes_no_other():
    if keras.backend.backend() == "jax":
        pytest.skip("JAX traces both branches; test_exact_partition_in_nce covers the values")
    np.testing.assert_allclose(
        follow(ExactPartition(2), exact=[1, 8, 6]), [1, 1, 8, 8, 6], rtol=1e-5
    )


@pytest.mark.parametrize("every", [1, 3])
def test_exact_partition_in_nce(every):
    bank, objective = MemoryBank(N, D, seed=0), nce(ExactPartition(every))
    rng = np.random.default_rng(0)
    expected = None
    for step in range(4):
        features = unit_rows(rng, BATCH, D)
        objective(features, np.arange(BATCH), bank)
        if step % every == 0:
            log_z = reference.attend(features, numpy(bank.rows), 0.5)[0]
            expected = np.log(np.mean(np.exp(log_z)))
        np.testing.assert_allclose(numpy(objective.partition.log_z), expected, rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [FirstBatches, MovingAveragePartition])
def test_an_estimate_that_is_not_finite_is_passed_over(make, bad):
    clean, disturbed = make(), make()
    expected = follow(clean, [2.0, 7.0])
    returned = follow(disturbed, [bad, 2.0, bad, 7.0])
    np.testing.assert_allclose(returned[[1, 3]], expected, rtol=1e-5)
    assert int(numpy(disturbed.num_batches_seen)) == 2


@pytest.mark.parametrize("make", [FirstBatches, ExactPartition])
def test_an_embedding_that_is_not_finite_leaves_z_to_the_others(make):
    bank, features = MemoryBank(N, D, seed=0), unit_rows(np.random.default_rng(0), BATCH, D)
    rows, negatives = numpy(bank.rows), np.random.default_rng(1).integers(0, N, (BATCH, NEGATIVES))
    if make is ExactPartition:
        expected = np.log(np.mean(np.exp(reference.attend(features[:3], rows, 0.5)[0])))
    else:
        expected = reference.sampled_log_z(features[:3], negatives[:3], rows, 0.5, UNIFORM)
    features[3] = np.nan
    objective = nce(make())
    losses = numpy(objective(features, np.arange(BATCH), bank, negatives=negatives))
    np.testing.assert_array_equal(np.isfinite(losses), [True, True, True, False])
    np.testing.assert_allclose(numpy(objective.partition.log_z), expected, rtol=1e-5)


@pytest.mark.parametrize("make", [FirstBatches, lambda: ExactPartition(every=1)])
def test_images_that_do_not_count_are_not_in_the_estimate(make):
    bank, images = MemoryBank(8, 4, seed=0), np.arange(6)
    features, negatives = numpy(bank.lookup(images)), np.arange(30).reshape(6, 5) % 8
    counted = np.array([True, False, True, True, False, True])
    features[~counted] = np.nan

    def log_z(counted, *batch):
        objective = NCE(5, 0.1, partition=make())
        losses = objective(*batch[:2], bank, negatives=batch[2], counted=counted)
        assert np.array_equal(np.isfinite(numpy(losses)), counted)
        return numpy(objective.partition.log_z), int(objective.partition.num_batches_seen)

    some = log_z(counted, features, images, negatives)
    batch = (array[counted] for array in (features, images, negatives))
    np.testing.assert_allclose(some, log_z(np.ones(4, "bool"), *batch), rtol=1e-6)
    assert log_z(np.zeros(6, "bool"), features, images, negatives)[1] == 0


def test_what_was_asked_for_is_not_replaced_by_a_file(tmp_path):
    def model(z, weights):
        sampler = AliasSampler(weights, seed=0)
        objective = NCE(5, 0.1, partition=ConstantPartition(z), sampler=sampler)
        model = small_model(n=3, objective=objective, compiled=False)
        model.build((None, 2))
        return model

    model(20.0, [1, 2, 3]).save_weights(tmp_path / "one.weights.h5")
    loaded = model(500.0, [3, 2, 1])
    loaded.load_weights(tmp_path / "one.weights.h5")
    objective = loaded.objective
    np.testing.assert_allclose(np.exp(numpy(objective.partition.log_z)), 500, rtol=1e-5)
    held = np.exp(numpy(objective.sampler.log_probabilities(np.arange(3), 3)))
    np.testing.assert_allclose(held, [1 / 2, 1 / 3, 1 / 6], rtol=1e-5)


def test_evaluation_stores_nothing():
    policy = MovingAveragePartition()
    estimate = keras.ops.convert_to_tensor(np.float32(5))
    first = policy.update(estimate, lambda: estimate, training=False)
    assert float(numpy(first)) == pytest.approx(5), "with nothing stored, the batch's own"
    follow(policy, [2.0])
    again = policy.update(estimate, lambda: estimate, training=False)
    assert float(numpy(again)) == pytest.approx(2)
    assert int(numpy(policy.num_batches_seen)) == 1


def test_the_estimate_of_z_is_unbiased_and_exact_when_every_index_is_drawn_once():
    bank, feature = MemoryBank(N, D, seed=0), unit_rows(np.random.default_rng(1), 1, D)
    rows, batch = numpy(bank.rows), np.repeat(feature, BATCH, axis=0)
    z = math.exp(reference.attend(feature, rows, 0.5)[0][0])

    exhaustive = nce(FirstBatches())
    exhaustive(batch, np.arange(BATCH), bank, negatives=EVERY_INDEX)
    np.testing.assert_allclose(math.exp(numpy(exhaustive.partition.log_z)), z, rtol=1e-5)

    steps = 10
    sampled = nce(FirstBatches(steps), seed=3)
    for _ in range(steps):
        sampled(batch, np.arange(BATCH), bank)
    terms = np.exp(rows.astype("float64") @ feature[0] / 0.5) * N
    deviation = terms.std() / math.sqrt(steps * BATCH * NEGATIVES)
    assert abs(math.exp(numpy(sampled.partition.log_z)) - z) < 4 * deviation


@pytest.mark.parametrize(
    "policy",
    [FirstBatches(3), ConstantPartition(2.5), MovingAveragePartition(0.7), ExactPartition(4)],
    ids=lambda policy: type(policy).__name__,
)
def test_configuration_survives_a_round_trip(policy):
    assert type(policy).from_config(policy.get_config()).get_config() == policy.get_config()


def test_a_policy_by_name():
    assert isinstance(NCE(partition="first_batches").partition, FirstBatches)
    assert isinstance(NCE(partition="exact").partition, ExactPartition)
    with pytest.raises(ValueError, match=r"partition='last'\. Expected one of 'first_batches'"):
        NCE(partition="last")
