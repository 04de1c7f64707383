"""The weighted k-nearest-neighbor classifier."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import UNIT

from instdisc_core.evaluation import knn_accuracy, weighted_knn
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import problems, unit_rows

SHAPES = ((1, 1, 1), (3, 7, 5), (16, 300, 32))


@given(
    problems(SHAPES),
    st.integers(1, 20),
    st.sampled_from([0.07, 1.0]),
    st.sampled_from([0.0, 0.4, 1.0]),  # few, since some frameworks compile for each
    st.sampled_from([5, 256]),
)
def test_it_is_the_reference_s_vote(problem, classes, temperature, share, batch_size):
    labels = problem.rng.integers(-3, classes, len(problem.bank))
    k = max(1, int(share * len(labels)))
    arguments = (problem.features, problem.bank, labels, k, temperature)
    predicted = weighted_knn(*arguments, batch_size=batch_size)
    clear = decided(*arguments)
    np.testing.assert_array_equal(predicted[clear], reference.weighted_knn(*arguments)[clear])


def decided(features, bank, labels, k, temperature):
    """Which votes no rounding changes: the k-th neighbor and the winner lead the next by enough."""
    cosines = features.astype("float64") @ bank.T.astype("float64")
    order = np.argsort(-cosines, axis=1)
    ranked = np.take_along_axis(cosines, order, axis=1)
    last = ranked[:, k - 1] - ranked[:, k] > 1e-5 if k < len(bank) else np.full(len(ranked), True)
    weights = np.exp((ranked[:, :k] - ranked[:, :1]) / temperature)
    votes = [(weights * (labels[order[:, :k]] == label)).sum(axis=1) for label in set(labels)]
    best = np.sort([*votes, np.zeros(len(features))], axis=0)
    return last & (best[-1] - best[-2] > 1e-3 * best[-1])


def test_the_nearest_can_outvote_the_many():
    train = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6]], "float32")
    query, labels = np.array([[1, 0]], "float32"), np.array(["near", "far", "far"])
    assert weighted_knn(query, train, labels, k=3, temperature=0.07).tolist() == ["near"]
    assert weighted_knn(query, train, labels, k=3, temperature=10.0).tolist() == ["far"]


def test_a_low_temperature_does_not_overflow():
    train = unit_rows(np.random.default_rng(0), 30, 4)
    labels = np.arange(30)
    np.testing.assert_array_equal(weighted_knn(train, train, labels, temperature=1e-4), labels)


def test_k_defaults_to_200_or_all():
    """At so high a temperature each of 250 neighbors has one vote, and the nearer win a draw."""
    angles = np.linspace(0, 2, 250)
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")

    def vote(labels, **kwargs):
        n = len(labels)
        return weighted_knn(train[:1], train[:n], list(labels), temperature=100.0, **kwargs)[0]

    draw_at_200 = 100 * "a" + 150 * "b"
    assert [vote(draw_at_200, k=k) for k in (200, 201)] == ["a", "b"]
    assert vote(draw_at_200) == "a"
    lead_from_199 = 99 * "a" + 151 * "b"
    assert [vote(lead_from_199, k=k) for k in (198, 199)] == ["a", "b"]
    assert vote(lead_from_199) == "b"
    lead_at_199 = 99 * "b" + 100 * "a" + "b" + 50 * "c"
    assert [vote(lead_at_199, k=k) for k in (199, 200)] == ["a", "b"]
    assert vote(lead_at_199) == "b"
    assert vote("abb") == "b", "all three vote"


def test_accuracy():
    train = np.eye(4, dtype="float32")
    assert knn_accuracy(train, [0, 1, 2, 0], train, np.arange(4), k=1) == 0.75
    near = {"train_features": np.float32([[1, 0], [0.8, 0.6], [0.8, -0.6]]), "k": 3}
    near |= {"train_labels": ["near", "far", "far"]}
    assert knn_accuracy(np.float32([[1, 0]]), ["near"], **near) == 1
    assert knn_accuracy(np.float32([[1, 0]]), ["near"], **near, temperature=10.0) == 0
    with pytest.raises(ValueError, match=r"labels of shape \(3,\).*each of the 4"):
        knn_accuracy(train, [0, 1, 2], train, np.arange(4), k=1)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_embeddings_that_are_not_finite_have_no_neighbors(wrong):
    train, queries = np.eye(9, dtype="float32"), np.eye(9, dtype="float32")
    queries[1:, 3] = wrong
    expected = r"features in which 8 of 9 rows are not finite: 1, 2, 3, 4, 5 and 3 more\."
    for rows in (queries, keras.ops.convert_to_tensor(queries)):
        with pytest.raises(ValueError, match=f"Received: {expected}"):
            weighted_knn(rows, train, np.arange(9))
    with pytest.raises(ValueError, match=f"Received: train_{expected}"):
        weighted_knn(train, queries, np.arange(9))


def test_what_does_not_fit_is_named(bank):
    labels = np.arange(10)
    for k in (0, 11, 2.0):
        with pytest.raises(ValueError, match=rf"k={k}"):
            weighted_knn(UNIT, bank.rows, labels, k=k)
    with pytest.raises(ValueError, match=r"\(10, 4\) and train_labels of shape \(9,\)"):
        weighted_knn(UNIT, bank.rows, labels[:9])
    with pytest.raises(ValueError, match="temperature=0"):
        weighted_knn(UNIT, bank.rows, labels, temperature=0)
    with pytest.raises(ValueError, match=r"shape \(3, 3\).*\(batch, 4\)"):
        weighted_knn(UNIT[:, :3], bank.rows, labels)
