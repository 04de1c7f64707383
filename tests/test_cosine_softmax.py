"""The cosine softmax against its float64 reference, and both gradients against differences."""

import keras
import numpy as np
import pytest
from differentiation import by_differences, differentiated, numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.objectives import cosine_softmax
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

B, CLASSES, DIM = 3, 5, 4


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.2, 1.0]), st.booleans())
def test_losses_and_gradients_are_those_of_the_reference(seed, temperature, some):
    rng = np.random.default_rng(seed)
    features = unit_rows(rng, B, DIM)
    weights = (unit_rows(rng, CLASSES, DIM) * rng.uniform(0.5, 2, (CLASSES, 1))).astype("float32")
    counted = rng.random(CLASSES) < 0.5 if some else np.ones(CLASSES, bool)
    counted[rng.integers(CLASSES)] = True
    targets = rng.choice(np.flatnonzero(counted), B).astype("int32")
    shares = rng.uniform(0, 1, B).astype("float32")
    renumbered = np.cumsum(counted)[targets] - 1

    def total(w):
        return shares @ reference.cosine_softmax(features, w[counted], renumbered, temperature)

    tensors = [keras.ops.convert_to_tensor(x) for x in (weights, targets, counted, shares)]
    w, t, c, of_each = tensors
    losses, gradient = differentiated(
        lambda f: cosine_softmax(f, w, t, temperature, c, of_each).losses, features
    )
    expected = reference.cosine_softmax(features, weights[counted], renumbered, temperature)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    weight_gradient = numpy(
        cosine_softmax(keras.ops.convert_to_tensor(features), w, t, temperature, c, of_each)[1]
    )
    by_weights = by_differences(total, weights.astype("float64"))
    np.testing.assert_allclose(weight_gradient, by_weights, rtol=1e-4, atol=1e-5)
    # The reference makes unit rows of the features: its gradient lacks the part along them.
    across = gradient - (gradient * features).sum(axis=1, keepdims=True) * features
    by_features = by_differences(
        lambda f: reference.cosine_softmax(f, weights[counted], renumbered, temperature).sum(),
        features.astype("float64"),
    )
    np.testing.assert_allclose(across, by_features, rtol=1e-4, atol=1e-4)


def test_weights_without_a_direction_have_no_gradient():
    features = unit_rows(np.random.default_rng(0), B, DIM)
    losses, gradient = cosine_softmax(features, np.zeros((CLASSES, DIM)), np.arange(B))
    np.testing.assert_allclose(numpy(losses), np.log(CLASSES), rtol=1e-6)
    np.testing.assert_array_equal(numpy(gradient), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: cosine_softmax(f, f[:, 1:], np.arange(B)),
        lambda f: cosine_softmax(f, f, np.arange(B), temperature=0.0),
        lambda f: cosine_softmax(f, f, np.arange(B - 1)),
        lambda f: cosine_softmax(f, f, np.arange(B)[:, None]),
        lambda f: cosine_softmax(f, f[:2], np.zeros(B, int), counted=[True] * B),
        lambda f: cosine_softmax(f, f, np.zeros(B)),
        lambda f: cosine_softmax(f, f, np.arange(B) - 1),
        lambda f: cosine_softmax(f, f, np.arange(B) + 1),
        lambda f: cosine_softmax(0 * f, f, np.arange(B)),
        lambda f: cosine_softmax(f, f, np.arange(B), shares=np.ones((B, B))),
        lambda f: cosine_softmax(f, f, np.arange(B), shares=[1.0]),
    ],
)
def test_bad_arguments(make):
    with pytest.raises(ValueError, match=r"Received: .*Expected"):
        make(np.full((B, DIM), DIM**-0.5, "float32"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_embeddings_of_another_length_are_said_to_be_so():
    features = 50 * unit_rows(np.random.default_rng(0), B, DIM)
    with pytest.warns(UserWarning, match=r"row lengths from 50 to 50\. Expected rows of length 1"):
        cosine_softmax(features, features, np.arange(B))
