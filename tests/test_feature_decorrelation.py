"""The decorrelation of IDFD: known values, small batches, and its place in a sum."""

import warnings

import numpy as np
import pytest
from differentiation import by_differences, differentiated, numpy
from models import TwoViews, small_model

from instdisc_core import (
    FeatureDecorrelation,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    objectives,
)
from instdisc_core.data import ImageArray
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

ROWS = unit_rows(np.random.default_rng(0), 12, 4)
SMALL = r"Received: a batch of 3 embeddings of width 4\. Expected at least 4"


def computed(columns, temperature=2.0):
    """The loss of each image of a batch with these columns, and the gradient of their sum."""
    bank = MemoryBank(*columns.shape, seed=0)
    batch = np.arange(len(columns), dtype="int32"), bank, True
    objective = FeatureDecorrelation(temperature)
    return differentiated(lambda f: objective.image_losses(f, *batch), columns.astype("float32"))


def loss(columns):
    """The loss of such a batch, which all images have."""
    losses, _ = computed(columns)
    assert np.ptp(losses) == 0
    return losses[0]


def test_orthogonal_columns_and_the_lowest_value():
    """With d = 128 and the paper's temperature; the columns of a simplex are the minimum."""
    dim = 128
    simplex = np.eye(dim) - 1 / dim
    assert loss(3 * np.eye(dim)) == pytest.approx(np.log(1 + 127 * np.exp(-0.5)), abs=1e-5)
    assert loss(np.eye(dim)) == pytest.approx(4.3571, abs=5e-5)
    assert loss(simplex) == pytest.approx(4.3532, abs=5e-5)


def test_equal_columns_are_the_highest_value():
    column = np.random.default_rng(0).standard_normal((20, 1))
    assert loss(np.repeat(column, 6, axis=1)) == pytest.approx(np.log(6), abs=1e-5)


def test_a_column_of_zeros_has_a_finite_gradient():
    columns = unit_rows(np.random.default_rng(0), 5, 3)
    columns[:, 1] = 0
    losses, gradient = computed(columns)
    assert np.all(np.isfinite(losses))
    assert np.all(np.isfinite(gradient))


def test_the_reference_is_the_derivative_of_its_loss():
    rows = ROWS[:5].astype("float64")

    def total(features):
        return reference.feature_decorrelation(features, None, None, 0.7)[0].sum()

    expected = reference.feature_decorrelation(rows, None, None, 0.7)[1]
    np.testing.assert_allclose(by_differences(total, rows), expected, rtol=1e-5, atol=1e-7)


def test_a_batch_smaller_than_the_width_is_said_to_be_so_once():
    bank, objective = MemoryBank(12, 4, seed=0), FeatureDecorrelation()
    with pytest.warns(UserWarning, match=SMALL):
        objective(ROWS[:3], np.arange(3), bank)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective(ROWS[:2], np.arange(2), bank)
        FeatureDecorrelation()(ROWS[:4], np.arange(4), bank)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("n", "batch_size", "drop_remainder"), [(3, 3, False), (7, 4, False), (7, 3, True)]
)
def test_fit_says_that_a_batch_is_small(n, batch_size, drop_remainder):
    objective = NonParametricSoftmax(1.0) + FeatureDecorrelation(2.0)
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 2, 3), "uint8")
    batches = ImageArray(images).batches(batch_size, drop_remainder=drop_remainder)
    with pytest.warns(UserWarning, match=SMALL):
        small_model(n=n, dim=4, objective=objective, compiled=False).fit(batches, verbose=0)
    if not drop_remainder:
        model = small_model(n=n, dim=4, objective=FeatureDecorrelation(2.0), compiled=False)
        with pytest.warns(UserWarning, match=SMALL):
            model.fit(images, np.arange(n), batch_size=batch_size, verbose=0)


def test_fit_asks_with_all_views_and_only_where_it_knows():
    asked = []
    model = small_model(n=7, dim=4, augmenter=TwoViews(), views=2, compiled=False)
    model.objective.check_batch = lambda *sizes: asked.append(sizes)
    images, indices = unit_rows(np.random.default_rng(0), 7, 4), np.arange(7)
    model.fit(images, indices, batch_size=5, verbose=0)
    model.fit(images, indices, batch_size=5, steps_per_epoch=1, verbose=0)
    model.fit(((images, indices) for _ in range(9)), steps_per_epoch=1, shuffle=False, verbose=0)
    assert asked == [(4, 4)]


def test_a_model_trains_with_the_sum():
    objective = NonParametricSoftmax(1.0) + FeatureDecorrelation(2.0)
    model = small_model(n=12, dim=4, objective=objective)
    images = np.random.default_rng(0).standard_normal((12, 6)).astype("float32")
    embeddings = model.predict(images, verbose=0)
    rows = numpy(model.memory_bank.rows)
    found = model.evaluate(images, np.arange(12), batch_size=12, verbose=0)
    batch = embeddings, np.arange(12), rows
    expected = reference.softmax(*batch, 1.0)[0] + reference.feature_decorrelation(*batch, 2.0)[0]
    np.testing.assert_allclose(found, expected.mean(), rtol=1e-5)
    losses = model.fit(images, np.arange(12), batch_size=12, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


@pytest.mark.filterwarnings("ignore:1 images in epoch 1")
def test_an_image_that_is_not_finite_is_not_among_the_columns():
    objective = NonParametricSoftmax(1.0) + FeatureDecorrelation(2.0)
    settings = {"n": 12, "dim": 4, "objective": objective, "compiled": False}
    model = small_model(**settings, non_finite="skip")
    images = np.random.default_rng(0).standard_normal((12, 6)).astype("float32")
    embeddings, rows = model.predict(images, verbose=0), numpy(model.memory_bank.rows)
    images[5] = np.nan
    logs = model.fit(images, np.arange(12), batch_size=12, verbose=0).history
    batch = np.delete(embeddings, 5, axis=0), np.delete(np.arange(12), 5), rows
    expected = reference.softmax(*batch, 1.0)[0] + reference.feature_decorrelation(*batch, 2.0)[0]
    np.testing.assert_allclose(logs["loss"], [expected.mean()], rtol=1e-5)


def test_idfd_has_a_name():
    objective = objectives.get("idfd", seed=3, temperature=0.5, decorrelation_temperature=3.0)
    (one, softmax), (weight, decorrelation) = objective.terms
    assert (one, weight) == (1.0, 1.0)
    assert isinstance(softmax, NonParametricSoftmax)
    assert isinstance(decorrelation, FeatureDecorrelation)
    assert (softmax.temperature, decorrelation.temperature) == (0.5, 3.0)
    model = InstanceDiscrimination(lambda x: x, 12, 4, "idfd")
    assert [term.temperature for _, term in model.objective.terms] == [1.0, 2.0]


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "2"])
def test_a_temperature_out_of_its_range(temperature):
    with pytest.raises(ValueError, match=r"Received: temperature=.*Expected"):
        FeatureDecorrelation(temperature)
