"""The policies for Z."""

import math

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import NCE, MemoryBank
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
    FirstBatches,
    MovingAveragePartition,
)
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

ESTIMATES = [2.0, 7.0, 3.0, 5.0, 4.0]


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
    bank = MemoryBank(40, 6, seed=0)
    objective = NCE(4, 0.1, partition=ExactPartition(every), seed=0)
    rng = np.random.default_rng(0)
    expected = None
    for step in range(4):
        features = unit_rows(rng, 5, 6)
        objective(features, np.arange(5), bank)
        if step % every == 0:
            log_z = reference.attend(features, numpy(bank.rows), 0.1)[0]
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
    bank, features = MemoryBank(40, 6, seed=0), unit_rows(np.random.default_rng(0), 4, 6)
    negatives = np.arange(20).reshape(4, 5)
    clean, disturbed = NCE(5, 0.1, partition=make()), NCE(5, 0.1, partition=make())
    clean(features[:3], [0, 1, 2], bank, negatives=negatives[:3])
    features[3] = np.nan
    losses = numpy(disturbed(features, [0, 1, 2, 3], bank, negatives=negatives))
    np.testing.assert_array_equal(np.isfinite(losses), [True, True, True, False])
    np.testing.assert_allclose(
        numpy(disturbed.partition.log_z), numpy(clean.partition.log_z), rtol=1e-5
    )


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
    rng = np.random.default_rng(1)
    rows, feature = unit_rows(rng, 60, 5), unit_rows(rng, 1, 5)
    bank = MemoryBank(60, 5, seed=0)
    bank.rows.assign(rows)
    z = math.exp(reference.attend(feature, rows, 0.5)[0][0])

    def estimate(**kwargs):
        objective = NCE(20, 0.5, partition=FirstBatches(), **kwargs)
        return objective

    exhaustive = estimate()
    exhaustive(feature, [0], bank, negatives=np.arange(60)[None])
    np.testing.assert_allclose(math.exp(numpy(exhaustive.partition.log_z)), z, rtol=1e-5)

    batch = np.repeat(feature, 500, axis=0)
    sampled = estimate(seed=3)
    sampled(batch, np.zeros(500, "int32"), bank)
    terms = np.exp(rows.astype("float64") @ feature[0] / 0.5) * 60
    deviation = terms.std() / math.sqrt(500 * 20)
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
