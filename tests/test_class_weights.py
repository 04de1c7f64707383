"""Sparse steps of class weights against the dense step in float64."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.class_weights import ClassWeights
from instdisc_core.testing import reference

N, DIM, K = 12, 3, 4
WAITS = (1, 7, 20)  # few, since some frameworks compile for each
RNG = np.random.default_rng(0)


class Dense:
    """The same weights, all of them moved in every step."""

    def __init__(self, weights):
        self.momentum, self.weight_decay = weights.momentum, weights.weight_decay
        self.w = numpy(weights.lookup(np.arange(weights.num_rows)))
        self.u = np.zeros_like(self.w)

    def update(self, indices, gradient, learning_rate):
        g = np.zeros_like(self.w)
        np.add.at(g, indices, gradient.astype("float64"))
        settings = self.momentum, self.weight_decay
        self.w, self.u = reference.sgd(self.w, self.u, g, learning_rate, *settings)


tensor = keras.ops.convert_to_tensor


def rate(t, steps):
    """A warm-up, and a cosine after it."""
    return 0.3 * min((t + 1) / 20, (1 + np.cos(np.pi * t / steps)) / 2)


def batch(rng, n=N, size=K):
    """Indices, of which some are given twice, and gradients."""
    indices = rng.integers(0, n, size).astype("int32")
    return indices, (0.02 * rng.standard_normal((size, DIM))).astype("float32")


def compiled(weights):
    """``weights.update`` as a compiled step runs it, on this framework."""
    backend = keras.backend.backend()
    if backend == "torch":
        return weights.update
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(weights.update, jit_compile=True)
    import jax

    @jax.jit
    def step(values, *arguments):
        mapping = list(zip(weights.variables, values, strict=True))
        with keras.StatelessScope(mapping) as scope:
            weights.update(*arguments)
        return [scope.get_current_value(v) for v in weights.variables]

    def update(*arguments):
        values = step([v.value for v in weights.variables], *arguments)
        for variable, value in zip(weights.variables, values, strict=True):
            variable.assign(value)

    return update


@pytest.mark.parametrize(
    ("how", "longest_wait", "weight_decay"),
    [
        pytest.param("eager", 1, 0.02, marks=pytest.mark.on_one_backend),
        ("eager", 7, 0.0),
        pytest.param("eager", 400, 0.02, marks=pytest.mark.on_one_backend),
        ("compiled", 1, 0.02),
        ("compiled", 7, 0.0),
        ("compiled", 400, 0.02),
    ],
)
def test_sparse_steps_equal_dense_ones(how, longest_wait, weight_decay):
    if how == "compiled" and keras.backend.backend() == "torch":
        pytest.skip("PyTorch runs steps as they are")
    weights = ClassWeights(N, DIM, 0.9, weight_decay, longest_wait, seed=0)
    dense, rng, steps = Dense(weights), np.random.default_rng(1), 120
    update = weights.update if how == "eager" else compiled(weights)
    for t in range(steps):
        indices, gradient = batch(rng, n=N - 1)  # the last one is never given
        step = np.float32(rate(t, steps))
        update(*map(tensor, (indices, gradient, step)))
        dense.update(indices, gradient, float(step))
        if t % 40 == 39:
            rows = numpy(weights.lookup(np.arange(N)))
            np.testing.assert_allclose(rows, dense.w, rtol=0, atol=1e-6)
            momentum_rows = numpy(weights.present(keras.ops.arange(N))[1])
            np.testing.assert_allclose(momentum_rows, dense.u, rtol=0, atol=1e-6)


@given(st.data())
def test_any_steps_equal_dense_ones_however_they_are_read(data):
    draw = data.draw
    momentum, decay = draw(st.sampled_from([0.0, 0.5, 0.99])), draw(st.sampled_from([0.0, 0.1]))
    weights = ClassWeights(N, DIM, momentum, decay, draw(st.sampled_from(WAITS)), seed=1)
    dense, rng = Dense(weights), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(0, 40))):
        indices, gradient = batch(rng)
        learning_rate = float(np.float32(rng.uniform(0, 0.5)))
        weights.update(indices, gradient, learning_rate)
        dense.update(indices, gradient, learning_rate)
    scale = 2e-6 * max(1.0, np.abs(dense.w).max(), np.abs(dense.u).max())
    features = rng.standard_normal((2, DIM)).astype("float32")
    some = rng.integers(0, N, (2, 5)).astype("int32")
    factors = rng.standard_normal((2, 5)).astype("float32")
    log_z, mean = weights.attend(tensor(features), 1.0)
    expected_log_z, expected_mean = reference.attend(features, dense.w, 1.0)
    of_each = np.einsum("bd,bkd->bk", features, dense.w[some])
    summed = np.einsum("bk,bkd->bd", factors, dense.w[some])
    for found, expected in (
        (weights.lookup(np.arange(N)), dense.w),
        (weights.scores(tensor(features), tensor(some)), of_each),
        (weights.scores(tensor(features), tensor(some[0])), features @ dense.w[some[0]].T),
        (weights.combine(tensor(factors), tensor(some)), summed),
        (log_z, expected_log_z),
        (mean, expected_mean),
        (weights.search(features, 1).scores[:, 0], (features @ dense.w.T).max(axis=1)),
    ):
        np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=9 * scale)


def test_loading_continues_as_if_nothing_had_happened():
    """Saved between two writings of a row: nothing is written early, bits are equal."""
    ours, theirs = (ClassWeights(N, DIM, 0.9, 0.1, 5, seed=seed) for seed in (0, 1))
    dense, rng = Dense(ours), np.random.default_rng(2)
    for t in range(30):
        indices, gradient = batch(rng)
        for weights in (ours, dense) if t < 17 else (ours, theirs, dense):
            weights.update(indices, gradient, 0.125)
        if t == 16:
            store: dict = {}
            ours.save_own_variables(store)
            assert np.ptp(store["3"]) > 0, "no row is behind another"
            theirs.load_own_variables(store)
            np.testing.assert_allclose(numpy(theirs.lookup(np.arange(N))), dense.w, atol=1e-6)
    for a, b in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    np.testing.assert_allclose(numpy(theirs.lookup(np.arange(N))), dense.w, atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours))
    assert again.get_config() == ours.get_config()


def test_a_step_writes_few_rows_and_none_waits_longer_than_allowed():
    weights = ClassWeights(N, DIM, longest_wait=6, seed=0)
    written = np.zeros(N)
    for t in range(1, 25):
        before = numpy(weights.written_after)
        weights.update([3], np.ones((1, DIM), "float32"), 0.1)
        changed = np.flatnonzero(numpy(weights.written_after) != before)
        assert 3 in changed
        assert len(changed) <= 1 + N / 6
        written[changed] = t
        assert np.all(t - written <= 6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_what_cannot_be_used_counts_as_no_gradient():
    weights, other = (ClassWeights(N, DIM, seed=0) for _ in range(2))
    gradient = np.ones((4, DIM), "float32")
    gradient[1, 2] = np.nan
    update = compiled(weights)
    if keras.backend.backend() == "torch":  # values of a tensor in the host's memory raise
        update = lambda i, *rest: weights.update(keras.ops.maximum(i, 0), *rest)  # noqa: E731
    indices = np.array([4, 5, -1, 6], "int32")
    if keras.backend.backend() == "torch":
        indices[2] = 5
        gradient[2] = np.inf
    update(*map(tensor, (indices, gradient, np.float32(0.1))))
    other.update(np.array([4, 6]), np.ones((2, DIM), "float32"), 0.1)
    rows = [numpy(w.lookup(np.arange(N))) for w in (weights, other)]
    np.testing.assert_allclose(*rows, atol=1e-7)
    counts = [int(numpy(v)) for v in (weights.rejected_gradients, weights.rejected_indices)]
    assert counts == ([2, 0] if keras.backend.backend() == "torch" else [1, 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda w: ClassWeights(0, DIM),
        lambda w: ClassWeights(N, DIM, momentum=1.0),
        lambda w: ClassWeights(N, DIM, weight_decay=-0.1),
        lambda w: ClassWeights(N, DIM, longest_wait=0),
        lambda w: w.update([N], np.ones((1, DIM), "float32"), 0.1),
        lambda w: w.update([0.5], np.ones((1, DIM), "float32"), 0.1),
        lambda w: w.update([0, 1], np.ones((1, DIM), "float32"), 0.1),
        lambda w: w.update([0], np.ones((1, DIM + 1), "float32"), 0.1),
        lambda w: w.update([0], np.ones((1, DIM), "float32"), -0.1),
        lambda w: w.lookup([N]),
        lambda w: w.search(np.ones((1, DIM), "float32"), N + 1),
    ],
)
def test_bad_input_changes_nothing(make):
    weights = ClassWeights(N, DIM, seed=0)
    weights.update(*batch(RNG), 0.1)
    before = [numpy(v) for v in weights.variables]
    with pytest.raises(ValueError, match=r"Received: .*Expected"):
        make(weights)
    for variable, value in zip(weights.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.mark.parametrize(("position", "value"), [(1, np.nan), (2, np.inf), (3, 6), (4, -1), (5, N)])
def test_a_damaged_file_is_rejected(position, value):
    weights, store = ClassWeights(N, DIM, longest_wait=5, seed=0), {}
    weights.save_own_variables(store)
    damaged = store[str(position)].copy()
    damaged[...] = value
    with pytest.raises(ValueError, match=r"Received: a file of class_weights.*Expected"):
        weights.load_own_variables({**store, str(position): damaged})
    np.testing.assert_array_equal(numpy(weights.rows), store["0"])
