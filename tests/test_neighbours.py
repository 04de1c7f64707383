"""The weighted k-nearest-neighbour classifier."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core import weighted_knn
from instdisc_core.evaluation import knn_accuracy
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import problems, unit_rows

SHAPES = ((1, 1, 1), (3, 7, 5), (16, 300, 32))


@given(
    problems(SHAPES),
    st.integers(1, 20),
    st.sampled_from([0.07, 1.0]),
    st.floats(0, 1),
    st.sampled_from([1, 5, 256]),
)
def test_it_is_the_reference_s_vote(problem, classes, temperature, share, batch_size):
    labels = problem.rng.integers(-3, classes, len(problem.bank))
    k = max(1, int(share * len(labels)))
    arguments = (problem.features, problem.bank, labels, k, temperature)
    predicted = weighted_knn(*arguments, batch_size=batch_size)
    np.testing.assert_array_equal(predicted, reference.weighted_knn(*arguments))


def test_the_nearest_can_outvote_the_many():
    train = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], "float32")
    query, labels = np.array([[1, 0]], "float32"), np.array(["near", "far", "far"])
    assert weighted_knn(query, train, labels, k=3, temperature=0.07).tolist() == ["near"]
    assert weighted_knn(query, train, labels, k=3, temperature=10.0).tolist() == ["far"]


def test_a_low_temperature_does_not_overflow():
    train = unit_rows(np.random.default_rng(0), 30, 4)
    labels = np.arange(30)
    np.testing.assert_array_equal(weighted_knn(train, train, labels, temperature=1e-4), labels)


@pytest.mark.parametrize("n", [3, 250])
def test_k_defaults_to_200_or_all(n):
    rng = np.random.default_rng(1)
    train, queries = unit_rows(rng, n, 4), unit_rows(rng, 9, 4)
    labels = rng.integers(0, 3, n)
    expected = reference.weighted_knn(queries, train, labels, min(n, 200), 0.07)
    np.testing.assert_array_equal(weighted_knn(queries, train, labels), expected)


def test_accuracy():
    train = np.eye(4, dtype="float32")
    assert knn_accuracy(train, [0, 1, 2, 0], train, np.arange(4), k=1) == 0.75
    with pytest.raises(ValueError, match=r"labels of shape \(3,\).*each of the 4"):
        knn_accuracy(train, [0, 1, 2], train, np.arange(4), k=1)
