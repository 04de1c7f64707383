"""The softmax over the images of a batch, against the float64 reference."""

import numpy as np
import pytest
from differentiation import by_differences, differentiated, numpy
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.objectives import in_batch_softmax
from instdisc_core.testing import reference

SHAPES = ((1, 3), (6, 5))


@st.composite
def views(draw):
    """Targets and predictions of any length, some of them nearly equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from(SHAPES))
    targets = rng.standard_normal(shape) * draw(st.sampled_from([0.01, 1.0, 100.0]))
    noise = rng.standard_normal(shape) * draw(st.sampled_from([0.01, 1.0]))
    return targets.astype("float32"), (targets / np.abs(targets).max() + noise).astype("float32")


@given(views(), st.sampled_from([0.05, 1.0]))
def test_losses_and_gradient(views, temperature):
    targets, predictions = views
    losses, gradient = differentiated(
        lambda p: in_batch_softmax(targets, p, temperature), predictions
    )
    expected = reference.in_batch_softmax(targets, predictions, temperature)
    for actual, value in zip((losses, gradient), expected, strict=True):
        scale = (1 + np.abs(value).max()) * (1 + 1 / temperature)
        np.testing.assert_allclose(actual, value, rtol=5e-5, atol=5e-6 * scale)


@given(views())
def test_no_gradient_flows_to_the_targets(views):
    targets, predictions = views
    gradient = differentiated(
        lambda t: in_batch_softmax(t, predictions, 0.5) + 0 * t[:, 0], targets
    )
    np.testing.assert_array_equal(gradient[1], 0)


def test_the_reference_is_the_derivative_of_its_loss():
    rng = np.random.default_rng(0)
    targets, predictions = rng.standard_normal((2, 4, 3))

    def total(p):
        return reference.in_batch_softmax(targets, p, 0.5)[0].sum()

    expected = reference.in_batch_softmax(targets, predictions, 0.5)[1]
    np.testing.assert_allclose(by_differences(total, predictions), expected, rtol=1e-6, atol=1e-8)


def test_lengths_do_not_matter_and_one_image_has_no_loss():
    rng = np.random.default_rng(0)
    targets, predictions = rng.standard_normal((2, 5, 3)).astype("float32")
    longer = 7 * targets, predictions * np.arange(1, 6, dtype="float32")[:, None]
    plain = numpy(in_batch_softmax(targets, predictions))
    np.testing.assert_allclose(numpy(in_batch_softmax(*longer)), plain, rtol=1e-5)
    np.testing.assert_array_equal(numpy(in_batch_softmax(targets[:1], predictions[:1])), 0)


def test_an_image_that_does_not_count_is_no_negative():
    rng = np.random.default_rng(0)
    targets, predictions = rng.standard_normal((2, 5, 3)).astype("float32")
    counted = np.array([True, False, True, True, False])
    losses, gradient = differentiated(
        lambda p: in_batch_softmax(targets, p, 0.3, counted), predictions
    )
    expected = reference.in_batch_softmax(targets[counted], predictions[counted], 0.3)
    np.testing.assert_array_equal(np.isnan(losses), ~counted)
    np.testing.assert_allclose(losses[counted], expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[counted], expected[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gradient[~counted], 0)
    targets[~counted], predictions[~counted] = np.inf, np.nan  # why an image may be left out
    again, of_others = differentiated(
        lambda p: in_batch_softmax(targets, p, 0.3, counted), predictions
    )
    np.testing.assert_array_equal(again, losses)
    np.testing.assert_array_equal(of_others, gradient)
    none, gradient = differentiated(
        lambda p: in_batch_softmax(targets, p, 0.3, np.zeros(5, "bool")), predictions
    )
    assert np.all(np.isnan(none))
    np.testing.assert_array_equal(gradient, 0)


def test_lists_and_half_precision():
    rows = [[1.0, 0.0], [0.0, 1.0]]
    expected = np.full(2, np.log(1 + np.exp(-50)))
    for dtype in ("float16", "float32"):
        losses = in_batch_softmax(np.asarray(rows, dtype), np.asarray(rows, dtype), 0.02)
        np.testing.assert_allclose(numpy(losses), expected, atol=1e-6)
    np.testing.assert_allclose(numpy(in_batch_softmax(rows, rows, 0.02)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "predictions", "temperature"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), 0.1),
        (np.ones((2, 3)), np.ones((3, 3)), 0.1),
        (np.ones(3), np.ones(3), 0.1),
        (np.ones((2, 3)), np.ones((2, 3)), 0.0),
    ],
)
def test_what_does_not_fit(targets, predictions, temperature):
    with pytest.raises(ValueError, match=r"Received: .*Expected"):
        in_batch_softmax(targets, predictions, temperature)
