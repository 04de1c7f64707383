"""Image sources over arrays and data sets, batches in their order, and a model that uses them."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import COLORS, two_classes
from PIL import Image

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import ImageArray, ImageDataset, ImageFolder, image_source


@pytest.fixture
def folder(tmp_path):
    """Twelve images of one color each, in two classes."""
    return two_classes(tmp_path / "photos")


# -- arrays and data sets


def test_arrays_know_labels_by_name():
    source = image_source(np.zeros((3, 4, 4, 3), "uint8"), labels=["cat", "dog", "cat"])
    assert source.class_names == ["cat", "dog"]
    assert source.labels.tolist() == [0, 1, 0]
    assert source.names[2] == "image 2"


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (np.zeros((3, 4, 4, 3), "float32"), "dtype float32"),
        (np.zeros((3, 4, 4), "uint8"), r"shape \(3, 4, 4\)"),
        (np.zeros((0, 4, 4, 3), "uint8"), "no images"),
    ],
)
def test_arrays_that_are_none(images, match):
    with pytest.raises(ValueError, match=match):
        ImageArray(images)


class Squares:
    """A data set as PyTorch's and Hugging Face's are: a length, and elements by their index."""

    def __init__(self, wrap, n=5):
        self.wrap, self.n = wrap, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.wrap(Image.new("RGB", (6, 4), tuple(int(c) for c in COLORS[i])), i)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image, i: image,
        lambda image, i: (image, i),
        lambda image, i: {"img": image, "label": i},
        lambda image, i: {"image": np.asarray(image)},
    ],
)
def test_data_sets_that_can_be_indexed(wrap):
    source = image_source(Squares(wrap), size=4)
    assert np.array_equal(source.images([4, 2])[:, 0, 0], COLORS[[4, 2]])
    assert len(source.batches(2, seed=0)) == 3


def test_data_sets_that_cannot():
    with pytest.raises(ValueError, match=r"a generator\. Expected a data set with len"):
        ImageDataset((x for x in ()), 4)
    with pytest.raises(ValueError, match="an empty data set"):
        ImageDataset([], 4)
    with pytest.raises(ValueError, match=r"element 0 .*a dict with \['pixels'\] and without image"):
        ImageDataset([{"pixels": 1}], 4)
    with pytest.raises(ValueError, match="no size"):
        image_source([np.zeros((4, 4, 3), "uint8")])


class Labeled(Squares):
    """As torchvision's: the classes can be had without decoding any image."""

    targets = (0, 1, 0, 1, 0)
    classes = ("cat", "dog")


def test_labels_of_a_data_set_are_taken_given_or_left():
    data = Labeled(lambda image, i: image)
    assert image_source(data, 4).labels.tolist() == [0, 1, 0, 1, 0]
    assert image_source(data, 4).class_names == ["cat", "dog"]
    assert image_source(data, 4, labels=None).labels is None
    assert image_source(data, 4, labels=[5, 4, 3, 2, 1]).labels.tolist() == [5, 4, 3, 2, 1]
    assert image_source(numbered(3)).labels is None


class Stream(list):
    """As tf.data's: elements one after the other."""

    as_numpy_iterator = list.__iter__


def test_labels_of_a_stream_are_taken_given_or_left():
    stream = Stream(zip(numbered(3), [7, 8, 9], strict=True))
    assert image_source(stream).labels.tolist() == [7, 8, 9]
    assert image_source(stream, labels=None).labels is None
    assert image_source(stream, labels=[1, 2, 3]).labels.tolist() == [1, 2, 3]
    assert image_source(Stream(numbered(3))).labels is None


def test_a_subset_holds_no_image_twice():
    with pytest.raises(ValueError, match="1 names that stand for several images: image 1"):
        ImageArray(numbered(4)).subset([1, 0, 1])


def test_a_subset_is_renumbered(folder):
    source = ImageFolder(folder, 8)
    some = source.subset([5, 1])
    assert some.names == (source.names[5], source.names[1])
    assert np.array_equal(some.images(), source.images([5, 1]))
    uncached = ImageFolder(folder, 8, cache=False).subset([5, 1])
    assert np.array_equal(uncached.images(), some.images())
    assert uncached.manifest.fingerprint == some.manifest.fingerprint
    with pytest.raises(ValueError, match="indices from 0 to 12"):
        source.subset([0, 12])


@pytest.mark.parametrize("cache", [True, False])
def test_indices_are_integers_whether_the_images_are_in_memory_or_not(folder, cache):
    source = ImageFolder(folder, 8, cache=cache)
    for some in (source, source.subset(range(12))):
        assert some.images([]).shape == (0, 8, 8, 3)
        for wrong, why in (
            (np.arange(12) % 2 == 0, r"dtype bool and shape \(12,\)\. .*np\.flatnonzero"),
            ([0.0, 1.0], "dtype float64"),
            ([[0, 1]], r"shape \(1, 2\)"),
            ([-1, 0], r"indices from -1 to 0\. Expected values in \[0, 12\)"),
            ([0, 12], "indices from 0 to 12"),
        ):
            for read in (some.images, some.start, some.subset):
                with pytest.raises(ValueError, match=why):
                    read(wrong)
    with pytest.raises(ValueError, match=r"no indices\. Expected at least one"):
        source.subset([])


def test_a_source_is_returned_as_it_is_and_takes_no_other_arguments():
    source = ImageArray(numbered(3, size=8))
    for size in (None, 8, (8, 8)):
        assert image_source(source, size) is source
    for arguments, why in (
        ({"size": 4}, r"size=4 for an ImageSource of size \(8, 8\)"),
        ({"labels": [1, 2, 3]}, "labels for an ImageSource"),
        ({"labels": None, "cache": True}, "labels, cache for an ImageSource"),
        ({"nonsense": 1}, "nonsense for an ImageSource"),
    ):
        with pytest.raises(ValueError, match=f"Received: {why}"):
            image_source(source, **arguments)


def test_data_sets_of_equal_length_are_told_apart():
    first, second = (ImageDataset(list(numbered(6) + shift), 2) for shift in (0, 1))
    assert first.manifest.fingerprint != second.manifest.fingerprint
    uncached = ImageDataset(list(numbered(6)), 2, cache=False)
    assert not uncached.manifest.is_complete
    assert first.manifest.is_complete


def test_labels_of_data_sets_and_sizes_of_arrays():
    images = numbered(4, size=8)
    assert image_source(list(images), size=4, labels=list("abab")).class_names == ["a", "b"]
    assert image_source(images, size=4).size == (4, 4)
    with pytest.raises(ValueError, match="labels for a folder"):
        image_source("somewhere", size=4, labels=[1])


def test_nobody_writes_into_a_source(folder):
    for source in (ImageFolder(folder, 8), ImageArray(numbered(4))):
        with pytest.raises(ValueError, match="read-only"):
            source.image(0)[:] = 7
        source.images()[:] = 7
        assert not np.all(source.image(1) == 7)


# -- batches


def numbered(n, size=2):
    """Images that show their index."""
    images = np.zeros((n, size, size, 3), "uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    return images


def shown(images):
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 1].astype(int)


@given(st.integers(2, 300), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_shows_every_image_once_and_is_a_function_of_seed_and_epoch(n, size, seed, epoch):
    batches = ImageArray(numbered(n)).batches(size, seed)
    batches.epoch = epoch
    images, indices = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(shown(images), indices)
    assert np.array_equal(np.sort(indices), np.arange(n))
    again = ImageArray(numbered(n)).batches(size, seed)
    again.epoch = epoch
    assert np.array_equal(again[len(again) - 1][1], batches[len(batches) - 1][1])
    if n > 20:
        assert not np.array_equal(batches.order(epoch + 1), indices)
        assert not np.array_equal(ImageArray(numbered(n)).batches(size, seed + 1).order(0), indices)


def test_nothing_is_kept_that_was_decoded_for_another_epoch(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(3, seed=0)
    batches[0]
    assert set(batches._ahead) == {(0, 1), (0, 2)}
    batches.epoch = 1
    batches[0]
    assert set(batches._ahead) == {(1, 1), (1, 2)}
    batches.on_epoch_end()
    assert not batches._ahead


def test_several_threads_may_ask(folder):
    source = ImageFolder(folder, 8, cache=False)
    batches = source.batches(3, seed=0)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(batches.__getitem__, [0, 1, 2, 3] * 5))
    for step, (images, indices) in enumerate(found):
        assert np.array_equal(indices, batches.indices(0, step % 4))
        assert np.array_equal(images, source.images(indices))


def test_a_remainder_can_be_dropped():
    batches = ImageArray(numbered(10)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in batches] == [4, 4]
    small = ImageArray(numbered(3)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in small] == [3]


def test_images_alone_in_order():
    (first,), (second,) = ImageArray(numbered(5)).ordered(3)
    assert shown(np.concatenate([first, second])).tolist() == [0, 1, 2, 3, 4]


def test_an_index_beyond_the_end():
    with pytest.raises(IndexError, match=r"batch 2\. Expected one of 0 to 1"):
        ImageArray(numbered(5)).ordered(3)[2]


def test_the_next_batches_are_decoded_ahead_and_each_once(folder, monkeypatch):
    source = ImageFolder(folder, 8, cache=False)
    decoded, lock = [], threading.Lock()
    decode_one = type(source)._decode

    def counting(self, index):
        with lock:
            decoded.append(index)
        return decode_one(self, index)

    monkeypatch.setattr(type(source), "_decode", counting)
    batches = source.batches(3, seed=0, prefetch=2)
    batches[0]
    for step in (1, 2):
        batches._ahead[0, step]()  # waits: they were begun
    assert len(decoded) == 9
    for step in (1, 2, 3):
        batches[step]
    assert sorted(decoded) == list(range(12))


def test_batches_on_the_device_are_the_same():
    source = ImageArray(numbered(10))
    here, there = source.batches(4, seed=3), source.batches(4, seed=3, on_device=True)
    for (a, i), (b, j) in zip(here, there, strict=True):
        assert np.array_equal(a, keras.ops.convert_to_numpy(b))
        assert np.array_equal(i, j)


def test_sources_and_batches_can_be_pickled(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(4, seed=0)
    first = batches[0]
    again = pickle.loads(pickle.dumps(batches))
    assert np.array_equal(again[0][0], first[0])


# -- with the model


class Seen(keras.layers.Layer):
    """Pixels that are scaled and kept as features, so that nothing is learned but the order."""

    def call(self, images):
        return keras.ops.reshape(keras.ops.cast(images, "float32") / 255 - 0.5, (-1, 12))


def model_for(n):
    keras.utils.set_random_seed(0)
    model = InstanceDiscrimination(
        Seen(), n, 4, NonParametricSoftmax(0.5), projector=keras.layers.Dense(4), seed=0
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


class Orders(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches, self.epochs = batches, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.epochs.append(self.batches.epoch)


def source_of(n=10, seed=0):
    return ImageArray(np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3)).astype("uint8"))


def test_fit_runs_through_the_epochs_and_a_run_that_goes_on_is_the_same():
    whole, parts = model_for(10), model_for(10)
    batches = source_of().batches(4, seed=0)
    seen = Orders(batches)
    whole.fit(batches, epochs=3, verbose=0, callbacks=[seen])
    assert seen.epochs == [0, 1, 2]
    parts.fit(source_of().batches(4, seed=0), epochs=1, verbose=0)
    parts.fit(source_of().batches(4, seed=0), epochs=3, initial_epoch=1, verbose=0)
    for ours, theirs in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )


def test_a_model_knows_its_images_and_rejects_others(tmp_path):
    model, batches = model_for(10), source_of().batches(4, seed=0)
    model.fit(batches, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Seen": Seen})
    weights = model_for(10)
    weights.build((None, 2, 2, 3))
    weights.load_weights(tmp_path / "model.weights.h5")
    for restored in (loaded, weights):
        assert restored.manifest == batches.manifest
        before = keras.ops.convert_to_numpy(restored.memory_bank.rows)
        other = source_of(seed=1).batches(4, seed=0)
        for run in (restored.fit, restored.evaluate):
            with pytest.raises(ValueError, match="10 changed: image 0, image 1"):
                run(other, verbose=0)
        assert np.array_equal(keras.ops.convert_to_numpy(restored.memory_bank.rows), before)
        restored.fit(source_of().batches(4, seed=0), verbose=0)


def test_evaluating_binds_a_model_to_no_data():
    model = model_for(10)
    model.evaluate(source_of(seed=1).batches(4, seed=0), verbose=0)
    assert model.manifest is None
    model.fit(source_of().batches(4, seed=0), verbose=0)
    assert model.manifest == source_of().manifest


def test_too_many_images_for_the_bank():
    with pytest.raises(ValueError, match=r"with 11 images. Expected 10.*num_instances=11"):
        model_for(10).fit(source_of(11).batches(4, seed=0), verbose=0)


def test_predict_takes_a_source_in_order():
    model, source = model_for(10), source_of()
    model.fit(source.batches(4, seed=0), verbose=0)
    np.testing.assert_allclose(
        model.predict(source.ordered(3), verbose=0),
        model.predict(source.images(), verbose=0),
        atol=1e-6,
    )


def test_predict_rejects_the_order_of_training():
    with pytest.raises(ValueError, match=r"order of training.*source\.ordered\(\)"):
        model_for(10).predict(source_of().batches(4, seed=0))


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_stays_flat_over_an_epoch_of_files(tmp_path):
    """20,000 names, of 200 JPEG files: decoding 25 MB of pixels a hundred batches must not stay."""
    rng = np.random.default_rng(0)
    for i in range(200):
        noise = rng.integers(0, 256, (64, 64, 3)).astype("uint8")
        Image.fromarray(noise).save(tmp_path / f"{i}.jpg")
    files = [(tmp_path / f"{i}.jpg").read_bytes() for i in range(200)]

    class Many:
        def __len__(self):
            return 20_000

        def __getitem__(self, i):
            return files[i % 200]

    batches = ImageDataset(Many(), 32).batches(100, seed=0)
    for step in range(40):
        batches[step]
    before = resident_bytes()
    for step in range(40, 200):
        batches[step]
    assert resident_bytes() - before < 8 * 2**20
