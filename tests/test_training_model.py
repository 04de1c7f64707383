"""What fit, evaluate and the steps of one batch check, reject and count."""

import warnings

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import DIM, SIZE, Shared, small_model

from instdisc_core import (
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    validation,
)

IMAGES = np.random.default_rng(0).random((SIZE, 6)).astype("float32")


class Batches(keras.utils.PyDataset):
    """Batches of four images, as a user may write them."""

    def __init__(self, images=IMAGES, indices=None):
        super().__init__()
        self.images, self.given = images, np.arange(SIZE) if indices is None else indices

    def __len__(self):
        return -(-len(self.images) // 4)

    def __getitem__(self, i):
        return self.images[4 * i : 4 * i + 4], self.given[4 * i : 4 * i + 4]


def generator(images, indices):
    dataset = Batches(images, indices)
    yield from (dataset[i] for i in range(len(dataset)))


def model_of(**kwargs):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Dense(5)])
    return small_model(encoder, SIZE, DIM, NonParametricSoftmax(0.5), **kwargs)


@pytest.fixture(scope="module")
def shared():
    return Shared(model_of(), (None, 6))


@pytest.fixture
def model(shared):
    return shared.as_new()


def moved(model):
    """Which rows are not those that the bank started from."""
    return np.any(
        numpy(model.memory_bank.rows) != numpy(MemoryBank(SIZE, DIM, seed=0).rows), axis=1
    )


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_indices_of_one_batch_are_checked_before_the_step(method):
    model = small_model()
    with pytest.raises(ValueError, match=r"indices from 0 to 10\. Expected values in \[0, 10\)"):
        getattr(model, method)(np.ones((2, 3), "float32"), [0, 10])
    assert not model.built


def test_fit_reports_indices_that_a_step_could_not_read(monkeypatch):
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    model = small_model(compiled=False)
    images = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    with pytest.raises(ValueError, match=r"1 instance indices in epoch 1 that name no row"):
        model.fit(images, np.array([0, 1, 2, 10]), batch_size=4, verbose=0)


@pytest.mark.parametrize("wrong", [2**32 + 1, -(2**40)])
@pytest.mark.parametrize("make", [Batches, generator])
def test_an_index_of_64_bits_trains_no_other_row(model, make, wrong):
    indices = np.array([wrong, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    with pytest.raises(ValueError, match=r"Received: .*Expected values in \[0, 10\)"):
        model.fit(make(IMAGES, indices), verbose=0, shuffle=False, steps_per_epoch=3)
    assert not np.any(moved(model)[:2])


def test_an_index_of_64_bits_is_evaluated_as_no_other_row(model):
    indices = np.array([2**32 + 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    data = Batches(IMAGES, indices)
    on_the_host = validation.host_values(model.memory_bank.rows.value) is not None
    if on_the_host and (model.run_eagerly or keras.backend.backend() == "torch"):
        with pytest.raises(ValueError, match=r"\[0, 10\)"):
            model.evaluate(data, verbose=0)
    else:
        assert np.isnan(model.evaluate(data, verbose=0))


def test_what_an_earlier_fit_rejected_is_not_counted_again(model):
    """As an earlier fit leaves the counters, whose compiled steps could only count."""
    model.memory_bank.rejected_indices.assign(3)
    model.rejected_images.assign(2)
    model.fit(Batches(), verbose=0, shuffle=False)
    assert int(numpy(model.memory_bank.rejected_indices)) == 3
    assert int(numpy(model.rejected_images)) == 2


def test_a_dataset_is_told_when_epochs_begin_and_end(model):
    calls = []

    class Telling(Batches):
        def on_epoch_begin(self):
            calls.append("begin")

        def on_epoch_end(self):
            calls.append("end")

    model.fit(Telling(), epochs=2, verbose=0, shuffle=False)
    assert calls.count("begin") == 2
    assert calls[-1] == "end"


def spoiled(*places, value=np.nan):
    images = IMAGES.copy()
    for place in places:
        images[place, 2] = value
    return images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_with_a_pixel_that_is_not_finite_are_rejected_before_the_first_step(model, value):
    with pytest.raises(ValueError, match=r"2 of 10 images are not finite: 3, 7\. "):
        model.fit(spoiled(3, 7, value=value), np.arange(SIZE), verbose=0)
    assert not np.any(moved(model))


def test_where_they_come_in_batches_the_epoch_ends_with_an_error_and_nothing_is_ruined(model):
    with pytest.raises(ValueError, match="2 images in epoch 1 with pixels that are not finite"):
        model.fit(Batches(spoiled(3, 7)), verbose=0, shuffle=False)
    assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)
    assert np.flatnonzero(~moved(model)).tolist() == [3, 7]


@pytest.mark.parametrize(
    "make", [lambda images: (Batches(images),), lambda i: (i, np.arange(SIZE), 4)]
)
def test_they_can_be_skipped_with_one_warning_each_epoch(model, make):
    model.non_finite = "skip"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.fit(*make(spoiled(3, 7)), epochs=2, verbose=0, shuffle=False).history
    texts = [str(w.message) for w in caught if "pixels" in str(w.message)]
    assert [text.split(" with")[0] for text in texts] == [
        "2 images in epoch 1",
        "2 images in epoch 2",
    ]
    assert np.all(np.isfinite(history["loss"]))
    assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)
    assert np.flatnonzero(~moved(model)).tolist() == [3, 7]
    assert int(numpy(model.rejected_images)) == 4


def test_the_loss_is_the_mean_over_the_images_that_are_left():
    """Without batch statistics, an image that is left out changes nothing for the others."""
    losses = []
    for images, indices in ((spoiled(3), np.arange(SIZE)), (np.delete(IMAGES, 3, 0), None)):
        keras.utils.set_random_seed(0)
        model = small_model(
            keras.layers.Dense(5), SIZE, DIM, NonParametricSoftmax(0.5), non_finite="skip"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            indices = np.delete(np.arange(SIZE), 3) if indices is None else indices
            weights = 1 + np.asarray(indices, "float32")
            history = model.fit(images, indices, SIZE, verbose=0, sample_weight=weights)
        losses.append((history.history["loss"][0], numpy(model.memory_bank.rows)))
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    np.testing.assert_allclose(losses[0][1], losses[1][1], atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_batch_with_nothing_left_trains_nothing(model):
    model.non_finite = "skip"
    with pytest.warns(UserWarning, match="10 images in epoch 1"):
        loss = model.fit(spoiled(*range(SIZE)), np.arange(SIZE), 4, verbose=0).history["loss"]
    assert loss == [0]
    assert not np.any(moved(model))
    assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)


def test_what_is_not_finite_shows_where_nothing_is_trained(model):
    assert np.isnan(model.predict(spoiled(3), verbose=0)[3]).all()
    assert np.isnan(model.evaluate(spoiled(3), np.arange(SIZE), verbose=0))


def test_nothing_to_train_on(model):
    for data in ((IMAGES[:0], np.arange(0)), (Batches(IMAGES[:0]),)):
        with pytest.raises(ValueError, match=r"no images\. Expected at least one batch"):
            model.fit(*data, verbose=0)


class TestModel:
    """The same at the boundary of fit, whose steps two frameworks compile."""

    images = np.random.default_rng(0).standard_normal((SIZE, 6)).astype("float32")

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls):
        model = small_model(keras.layers.Dense(8), SIZE, DIM, NonParametricSoftmax(0.5))
        return Shared(model, (None, 6))

    @pytest.fixture
    def model(self, shared):
        return shared.as_new()

    @pytest.mark.parametrize(
        ("targets", "message"),
        [([0, 1, SIZE], "num_instances=11"), ([[0], [1], [2]], r"shape \(3, 1\)")],
    )
    @pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
    def test_arrays_of_targets(self, model, method, targets, message):
        before = [numpy(v) for v in model.weights]
        run = getattr(model, method)
        verbose = {} if method == "train_on_batch" else {"verbose": 0}
        with pytest.raises(ValueError, match=message):
            run(self.images[:3], np.asarray(targets), **verbose)
        for variable, value in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(numpy(variable), value)

    @pytest.mark.parametrize("wrong", [-1, SIZE, 2**31 - 1])
    def test_a_generator_of_wrong_targets_trains_no_row(self, model, wrong):
        rows = numpy(model.memory_bank.rows)

        def batches():
            yield self.images[:3], np.array([1, wrong, 2], "int32")

        with pytest.raises(ValueError, match=r"Received: .*Expected values in \[0, 10\)"):
            model.fit(batches(), verbose=0, shuffle=False, steps_per_epoch=1)
        moved = np.any(numpy(model.memory_bank.rows) != rows, axis=1)
        assert not np.any(moved[[0, 3, 4, 5, 6, 7, 8, 9]])
        assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)

    def test_no_targets(self, model):
        with pytest.raises(ValueError, match=r"no targets.*numpy\.arange"):
            model.fit(self.images, verbose=0)

    def test_a_loss_in_compile(self):
        model = small_model(n=SIZE, dim=DIM)
        model.compile(optimizer="sgd", loss="mse")
        with pytest.raises(ValueError, match="the model brings its own"):
            model.fit(self.images, np.arange(SIZE), verbose=0)

    def test_an_encoder_that_does_not_pool(self):
        model = InstanceDiscrimination(keras.layers.Conv2D(2, 3), SIZE, DIM)
        with pytest.raises(ValueError, match=r"shape \(\w+, 3, 3, 2\).*pooling='avg'"):
            model(np.zeros((1, 5, 5, 1), "float32"))

    def test_a_projector_of_another_width(self):
        model = InstanceDiscrimination(
            keras.layers.Dense(8), SIZE, DIM, projector=keras.layers.Dense(5)
        )
        with pytest.raises(ValueError, match=r"shape \(\w+, 5\).*embedding_dim"):
            model(self.images)
