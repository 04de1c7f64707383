"""The support set against a list, and its neighbors: from before, unit rows, written rows only."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from instdisc_core import SupportSet
from instdisc_core.testing.strategies import unit_rows

ROWS, DIM = 5, 4
STORED = {"float32": 1e-6, "bfloat16": 4e-3, "float16": 1e-3, "int8": 8e-3}
LONGEST = np.sqrt(np.finfo("float32").max)  # of an embedding whose square is finite
SIZES = (0, 3, ROWS, ROWS + 3)  # of batches; few, since some frameworks compile for each
RNG = np.random.default_rng(0)


class Listed:
    """What a support set means: a Python list of the last rows, and who they are."""

    def __init__(self):
        self.entries, self.rejected = [], 0

    def enqueue(self, features, images):
        for f, image in zip(features.astype("float64"), images, strict=True):
            length = np.sqrt((f**2).sum())
            if 0 < length < LONGEST:
                self.entries.append((f / length, image))
            else:
                self.rejected += 1

    def last(self):
        return self.entries[-ROWS:]

    def best(self, query):
        """The cosine of the most similar of the last rows; 1, with itself, if there is none."""
        return max((row @ query for row, _ in self.last()), default=1.0)


def in_order(support_set):
    """Rows and images of a support set, the oldest first."""
    fill, following = int(numpy(support_set.fill)), int(numpy(support_set.next))
    positions = (following - fill + np.arange(fill)) % ROWS
    rows = numpy(support_set.lookup(positions)) if fill else np.zeros((0, DIM))
    return rows, numpy(support_set.image_indices)[positions].tolist()


@st.composite
def batches(draw):
    """Some batches, each of any size from 0 to more than all rows, with embeddings to reject."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for size in draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4)):
        features = rng.standard_normal((size, DIM)) * draw(st.sampled_from([0.01, 1.0, 50.0]))
        bad = rng.random(size) < draw(st.sampled_from([0.0, 0.3]))
        features[bad] = rng.choice([0.0, np.nan, np.inf, 1e30])
        found.append((features.astype("float32"), rng.integers(0, 1000, size).astype("int32")))
    return found


@settings(max_examples=8)
@given(batches(), st.sampled_from(list(STORED)))
def test_a_queue_of_any_batches_is_the_end_of_a_list(batches, dtype):
    """And neighbors are rows that were written."""
    support_set, listed = SupportSet(ROWS, DIM, dtype), Listed()
    queries = unit_rows(np.random.default_rng(1), 3, DIM)
    with np.errstate(all="ignore"):
        for features, images in batches:
            support_set.enqueue(features, images)
            listed.enqueue(features, images)
            rows, found = in_order(support_set)
            assert found == [image for _, image in listed.last()]
            expected = np.array([row for row, _ in listed.last()]).reshape(-1, DIM)
            np.testing.assert_allclose(rows, expected, atol=STORED[dtype])
            assert int(numpy(support_set.rejected_embeddings)) == listed.rejected
    found = support_set.neighbors(7 * queries)
    for i, query in enumerate(queries.astype("float64")):
        cosine = listed.best(query)
        assert query @ numpy(found.rows)[i] == pytest.approx(cosine, abs=2 * STORED[dtype])
    written = int(numpy(support_set.fill))
    assert np.all(numpy(found.positions) < written)
    assert np.all((numpy(found.positions) == -1) == (written == 0))
    scores, indices = map(numpy, support_set.search(queries, ROWS))
    assert np.all(np.sum(indices >= 0, axis=1) == min(ROWS, written))
    assert np.all(np.isneginf(scores) == (indices == -1))


def test_the_nearest_of_a_few_rows_may_point_away():
    support_set = SupportSet(ROWS, DIM)
    row = np.eye(DIM, dtype="float32")[:1]
    support_set.enqueue(row)
    np.testing.assert_array_equal(numpy(support_set.neighbors(-row).rows), row)


def test_in_training_one_of_the_nearest_is_drawn_and_a_seed_repeats_it():
    rows = np.eye(DIM, dtype="float32")
    query = np.tile(np.array([[4, 3, 2, 1]], "float32"), (200, 1))
    drawn = []
    for _ in range(2):
        support_set = SupportSet(ROWS, DIM, seed=3)
        assert set(numpy(support_set.neighbors(query, 3, training=True).positions)) == {-1}
        support_set.enqueue(rows, np.arange(DIM))
        found = [numpy(support_set.neighbors(query, 3, training=True).images) for _ in range(2)]
        assert set(numpy(support_set.neighbors(query, 3).images)) == {0}
        drawn.append(np.stack(found))
    np.testing.assert_array_equal(*drawn)
    assert np.any(drawn[0][0] != drawn[0][1])
    shares = np.bincount(drawn[0].ravel().astype(int), minlength=DIM) / 400
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.12)
    few = SupportSet(ROWS, DIM, seed=3)
    few.enqueue(rows[:2])
    assert set(numpy(few.neighbors(query, 3, training=True).positions)) == {0, 1}


def test_a_query_that_is_not_finite_has_no_neighbor():
    support_set = SupportSet(ROWS, DIM)
    support_set.enqueue(np.eye(DIM, dtype="float32"))
    queries = np.eye(DIM, dtype="float32")[:2]
    queries[0, 0] = np.nan
    found = support_set.neighbors(keras.ops.convert_to_tensor(queries))
    assert numpy(found.positions).tolist() == [-1, 1]


@pytest.mark.parametrize("dtype", STORED)
def test_everything_is_saved(dtype, tmp_path):
    ours, theirs = (SupportSet(ROWS, DIM, dtype, seed=seed) for seed in (0, 1))
    ours.enqueue(unit_rows(RNG, 3, DIM), np.arange(3))
    ours.enqueue(unit_rows(RNG, 4, DIM), np.arange(4))
    store: dict = {}
    ours.save_own_variables(store)
    theirs.load_own_variables(store)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    more = unit_rows(RNG, 4, DIM)
    for support_set in (ours, theirs):
        support_set.enqueue(more)
    for a, b in zip(in_order(ours), in_order(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert again.get_config() == ours.get_config()
    assert again.capacity == ROWS


@pytest.mark.parametrize(("following", "fill"), [(-1, 0), (5, 5), (2, 1), (2, 6), (2, 3)])
def test_a_damaged_file_is_rejected(following, fill):
    support_set, store = SupportSet(ROWS, DIM, seed=0), {}
    support_set.save_own_variables(store)
    before = dict(store)
    store |= {"1": np.array(following, "int32"), "2": np.array(fill, "int32")}
    with pytest.raises(ValueError, match=r"Received: a file of support_set.*Expected"):
        support_set.load_own_variables(store)
    support_set.save_own_variables(store)
    for name, value in before.items():
        np.testing.assert_array_equal(store[name], value)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: SupportSet(0, DIM),
        lambda s: SupportSet(ROWS, 1.5),
        lambda s: s.enqueue(np.ones((2, DIM + 1), "float32")),
        lambda s: s.enqueue(np.ones(DIM, "float32")),
        lambda s: s.enqueue(np.ones((2, DIM), "float32"), np.arange(3)),
        lambda s: s.enqueue(np.ones((2, DIM), "float32"), np.array([2**32 + 1, 5])),
        lambda s: s.enqueue(np.ones((2, DIM), "float32"), [0.5, 1.0]),
        lambda s: s.enqueue(np.ones((2, DIM), "float32"), [-2, 1]),
        lambda s: s.neighbors(np.ones((2, DIM + 1), "float32")),
        lambda s: s.neighbors(np.ones((2, DIM), "float32"), k=0),
        lambda s: s.neighbors(np.ones((2, DIM), "float32"), k=ROWS + 1),
        lambda s: s.search(np.ones((2, DIM), "float32"), k=ROWS + 1),
    ],
)
def test_bad_input_changes_nothing(make):
    support_set = SupportSet(ROWS, DIM, seed=0)
    support_set.enqueue(unit_rows(RNG, 3, DIM))
    before = [numpy(v) for v in support_set.weights]
    with pytest.raises(ValueError, match=r"Received: .*Expected"):
        make(support_set)
    for variable, value in zip(support_set.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
