"""Numbers that no training should see: wide indices, NaN, embeddings too long, nothing at all."""

import warnings

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import Shared, small_model

from instdisc_core import (
    NCE,
    BankOps,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    ParametricSoftmax,
    validation,
)
from instdisc_core.data.checked import finite_images, narrow

N, D = 10, 4
UNIT = np.eye(4, dtype="float32")[:3]
IMAGES = np.random.default_rng(0).random((N, 6)).astype("float32")


class Batches(keras.utils.PyDataset):
    """Batches of four images, as a user may write them."""

    def __init__(self, images=IMAGES, indices=None):
        super().__init__()
        self.images, self.given = images, np.arange(N) if indices is None else indices

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
    return small_model(encoder, N, D, NonParametricSoftmax(0.5), **kwargs)


@pytest.fixture(scope="module")
def shared():
    return Shared(model_of(), (None, 6))


@pytest.fixture
def model(shared):
    return shared.as_new()


def moved(model):
    """Which rows are not those that the bank started from."""
    return np.any(numpy(model.memory_bank.rows) != numpy(MemoryBank(N, D, seed=0).rows), axis=1)


# -- indices


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
    if model.run_eagerly or keras.backend.backend() == "torch":
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


def test_narrow_indices_are_equal_and_other_batches_stay():
    images, indices, weights = narrow((IMAGES, np.arange(N), np.ones(N)))
    assert indices.dtype == "int32"
    assert indices.tolist() == list(range(N))
    assert images is IMAGES
    assert weights.tolist() == [1] * N
    for batch in (IMAGES, (IMAGES,), (IMAGES, np.ones(N)), {"images": IMAGES}):
        assert narrow(batch) is batch


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


# -- pixels


def spoiled(*places, value=np.nan):
    images = IMAGES.copy()
    for place in places:
        images[place, 2] = value
    return images


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_with_a_pixel_that_is_not_finite_are_rejected_before_the_first_step(model, value):
    with pytest.raises(ValueError, match=r"2 of 10 images are not finite: 3, 7\. "):
        model.fit(spoiled(3, 7, value=value), np.arange(N), verbose=0)
    assert not np.any(moved(model))


def test_where_they_come_in_batches_the_epoch_ends_with_an_error_and_nothing_is_ruined(model):
    with pytest.raises(ValueError, match="2 images in epoch 1 with pixels that are not finite"):
        model.fit(Batches(spoiled(3, 7)), verbose=0, shuffle=False)
    assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)
    assert np.flatnonzero(~moved(model)).tolist() == [3, 7]


@pytest.mark.parametrize(
    "make", [lambda images: (Batches(images),), lambda i: (i, np.arange(N), 4)]
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
    for images, indices in ((spoiled(3), np.arange(N)), (np.delete(IMAGES, 3, 0), None)):
        keras.utils.set_random_seed(0)
        model = small_model(
            keras.layers.Dense(5), N, D, NonParametricSoftmax(0.5), non_finite="skip"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            indices = np.delete(np.arange(N), 3) if indices is None else indices
            weights = 1 + np.asarray(indices, "float32")
            history = model.fit(images, indices, N, verbose=0, sample_weight=weights)
        losses.append((history.history["loss"][0], numpy(model.memory_bank.rows)))
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-5)
    np.testing.assert_allclose(losses[0][1], losses[1][1], atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_batch_with_nothing_left_trains_nothing(model):
    model.non_finite = "skip"
    with pytest.warns(UserWarning, match="10 images in epoch 1"):
        loss = model.fit(spoiled(*range(N)), np.arange(N), 4, verbose=0).history["loss"]
    assert loss == [0]
    assert not np.any(moved(model))
    assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)


def test_an_image_of_two_parts_is_finite_if_both_are():
    parts = {"a": np.zeros((3, 2), "float32"), "b": np.zeros((3, 2, 2), "float16")}
    parts["a"][0, 1], parts["b"][2, 1, 1] = np.nan, np.inf
    found = finite_images(keras.tree.map_structure(keras.ops.convert_to_tensor, parts))
    assert numpy(found).tolist() == [0, 1, 0]
    assert finite_images(keras.ops.zeros((3, 2), "uint8")) is None


def test_what_is_not_finite_shows_where_nothing_is_trained(model):
    assert np.isnan(model.predict(spoiled(3), verbose=0)[3]).all()
    assert np.isnan(model.evaluate(spoiled(3), np.arange(N), verbose=0))


@pytest.mark.parametrize(
    ("argument", "value"), [("non_finite", "ignore"), ("preprocessing", "caffe")]
)
def test_choices_are_checked_and_saved(argument, value, tmp_path):
    with pytest.raises(ValueError, match=f"{argument}='{value}'"):
        model_of(**{argument: value})
    model = model_of(non_finite="skip", preprocessing=keras.layers.Rescaling(2.0))
    model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.non_finite == "skip"
    assert again.preprocessing.scale == 2
    np.testing.assert_array_equal(
        again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )


def test_preprocessing_comes_before_the_encoder_and_after_the_augmentation():
    seen = []

    class Watch(keras.layers.Layer):
        def __init__(self, what):
            super().__init__()
            self.what = what

        def call(self, images):
            seen.append(self.what)
            return images

    model = InstanceDiscrimination(
        keras.layers.Dense(5), N, D, preprocessing=Watch("pre"), augmenter=Watch("augment")
    )
    model(IMAGES, training=True)
    model(IMAGES)
    assert seen[-3:] == ["augment", "pre", "pre"]


# -- embeddings


@pytest.mark.parametrize("value", [3e38, 1e20, -3e38])
def test_an_embedding_whose_length_overflows_is_rejected_and_counted(value):
    bank = MemoryBank(N, D, seed=0)
    before = numpy(bank.rows)
    bank.update([1, 2], np.array([[value] * 4, [1, 0, 0, 0]], "float32"))
    after = numpy(bank.rows)
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert not np.array_equal(after[2], before[2])
    assert int(numpy(bank.rejected_embeddings)) == 1


def test_a_long_embedding_counts_by_its_direction_and_length():
    bank = MemoryBank(N, D, seed=0)
    bank.update([1], np.array([[0, 0, 1e18, 0]], "float32"))
    np.testing.assert_allclose(numpy(bank.rows)[1], [0, 0, 1, 0], atol=1e-6)


class Recording(BankOps):
    """The reference, keeping which rows it was given, and which of them move."""

    def __init__(self):
        self.given = []

    def update_rows(self, bank, indices, rows, moves):
        self.given.append((numpy(indices), numpy(moves)))
        super().update_rows(bank, indices, rows, moves)


@pytest.mark.parametrize("rejected", [0, 1, 2])
def test_an_update_is_given_rows_that_it_moves_and_no_other(rejected):
    """What is rejected joins one that is not: a backend may write every row that it is given."""
    features = UNIT.copy()
    features[rejected] = np.nan
    recording = Recording()
    bank = MemoryBank(N, D, seed=0, backend=recording)
    bank.update([5, 6, 7], features)
    (indices, moves) = recording.given[0]
    assert set(indices) == {5, 6, 7} - {5 + rejected}
    assert np.all(moves)


def test_queries_that_are_not_finite(monkeypatch):
    bank = MemoryBank(N, D, seed=0)
    queries = UNIT.copy()
    queries[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 rows are not finite: 1\."):
        bank.search(queries, 2)
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    scores, indices = bank.search(queries, 2)
    assert np.isnan(numpy(scores)).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    assert (numpy(indices) == -1).tolist() == [[False] * 2, [True] * 2, [False] * 2]
    expected = MemoryBank(N, D, seed=0).search(UNIT[[0, 2]], 2)[1]
    np.testing.assert_array_equal(numpy(indices)[[0, 2]], numpy(expected))


# -- nothing


def test_nothing_to_train_on(model):
    for data in ((IMAGES[:0], np.arange(0)), (Batches(IMAGES[:0]),)):
        with pytest.raises(ValueError, match=r"no images\. Expected at least one batch"):
            model.fit(*data, verbose=0)


def test_a_term_that_would_be_ignored_is_rejected():
    with pytest.raises(ValueError, match="'proximal_weight': 30"):
        ParametricSoftmax(proximal_weight=30)


# -- names


def test_state_has_the_same_names_whatever_was_built_before():
    """So that under PyTorch one bank's ``state_dict`` fits the next."""
    for make in (lambda: MemoryBank(3, 2), lambda: NCE(2)):
        first, second = make(), make()
        assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert MemoryBank(3, 2, name="mine").name == "mine"


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="state_dict is PyTorch's")
def test_a_bank_loads_the_state_of_another():
    first, second = MemoryBank(3, 2, seed=0), MemoryBank(3, 2, seed=1)
    assert not np.array_equal(numpy(first.rows), numpy(second.rows))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(numpy(first.rows), numpy(second.rows))
    NCE(2).load_state_dict(NCE(2).state_dict())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's steps are pure functions")
@pytest.mark.parametrize("objective", [NonParametricSoftmax(), NCE(4)])
def test_a_step_that_would_lose_its_updates_raises_at_once(objective):
    import jax

    bank = MemoryBank(N, D, seed=0)
    indices = np.arange(3, dtype="int32")

    @jax.jit
    def step(features):
        losses = objective(features, indices, bank)
        bank.update(indices, features, after=losses)
        return losses

    before = [numpy(v) for v in bank.variables]
    with pytest.raises(RuntimeError, match=r"keras\.StatelessScope"):
        step(UNIT)
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)  # it can be read
    bank.update(indices, UNIT)
    exact = jax.jit(lambda f: NonParametricSoftmax()(f, indices, bank))(UNIT)
    assert np.all(np.isfinite(exact)), "what moves nothing may be compiled"
