"""One object to search: its neighbors, whose images it takes, and what is added to it."""

import keras
import numpy as np
import pytest
from photo_sets import DIM, SIDE, N, encoder, named, pixels

from instdisc_core import NNCLR
from instdisc_core.data import ImageArray, ImageDataset
from instdisc_core.evaluation import retrieve
from instdisc_core.index import ImageIndex


def cosines(rows):
    products = np.float64(rows) @ np.float64(rows).T
    np.fill_diagonal(products, -2)
    return products


def test_the_rows_are_the_model_s_embeddings(index, model, photos):
    rows = model.predict(photos.ordered(), verbose=0)
    plain = ImageIndex.from_model(model, photos, mirror=False)
    np.testing.assert_array_equal(plain.rows, rows)
    both = rows + model.predict(pixels()[:, :, ::-1].copy(), verbose=0)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(index.rows, both, atol=1e-6)
    assert index.names == photos.names
    assert len(index) == N
    assert not index.rows.flags.writeable
    assert not [w for w in index.model.weights if "memory_bank" in w.path], "the bank is not kept"


def test_an_image_finds_the_nearest_others_and_not_itself(index, photos):
    expected = np.argsort(-cosines(index.rows), axis=1)[:, :3]
    again = named(pixels())  # other objects, the same data
    for found in (index.search(photos, 3), index.search(again, 3), index.neighbors(3)):
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_allclose(
            found.scores, np.take_along_axis(cosines(index.rows), expected, 1), atol=1e-5
        )
    some = index.search(photos.subset([4, 2]), 3)
    np.testing.assert_array_equal(some.indices, expected[[4, 2]])
    np.testing.assert_array_equal(index.neighbors(3, [4, 2]).indices, expected[[4, 2]])
    np.testing.assert_array_equal(index.search(pixels()[[4, 2]], 3).indices, expected[[4, 2]])


@pytest.mark.on_one_backend
def test_an_image_and_its_mirror_image_are_the_same(index):
    mirrored = pixels()[:, :, ::-1].copy()
    found = index.search(mirrored, 1)
    assert found.indices[:, 0].tolist() == list(range(N))
    np.testing.assert_allclose(found.scores, 1, atol=1e-6)


@pytest.mark.on_one_backend
def test_other_images_and_embeddings_find_any(index):
    copy = ImageArray(pixels()[[5]], names=["a copy under another name"])
    assert index.search(copy, N).indices[0, 0] == 5
    found = index.search(index.rows[[5, 6]], N)
    assert found.indices[:, 0].tolist() == [5, 6]
    np.testing.assert_array_equal(
        index.search(index.rows[[5, 6]].tolist(), N).indices, found.indices
    )


@pytest.mark.on_one_backend
def test_an_index_is_what_retrieve_searches(index, model, photos):
    found = index.retrieve(photos, named(pixels()), k=2, indices=[3, 0])
    expected = retrieve(index.rows, photos, index.rows, photos, 2, [3, 0])
    np.testing.assert_array_equal(found.neighbors, expected.neighbors)
    others = index.retrieve(named(pixels(2, seed=1), first=50), photos, k=2)
    assert others.neighbors.shape == (2, 2)
    with pytest.raises(ValueError, match=r"a gallery with 12 images .* 12 changed"):
        index.retrieve(photos, named(pixels(seed=1)), k=2)


@pytest.mark.on_one_backend
@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (ImageArray(np.zeros((1, 5, 5, 3), "uint8")), r"images of \(5, 5\) pixels.* \(4, 4\)"),
        (np.zeros((1, 5, 5, 3), "uint8"), r"images of \(5, 5\) pixels"),
        (np.ones((1, 3), "float32"), r"features of shape \(1, 3\)"),
        (np.full((1, DIM), np.nan, "float32"), "not finite"),
    ],
)
def test_other_images_and_embeddings_are_rejected(index, queries, message):
    with pytest.raises(ValueError, match=message):
        index.search(queries, 1)


@pytest.mark.on_one_backend
def test_k_is_at_most_what_there_is(index, photos):
    with pytest.raises(ValueError, match=r"k=12\. Expected at most 11"):
        index.search(photos, N)
    with pytest.raises(ValueError, match=r"k=0\. Expected an integer"):
        index.neighbors(0)


@pytest.mark.on_one_backend
def test_only_unit_rows_of_the_images_are_taken(photos):
    rows = np.eye(N, dtype="float32")
    for wrong, message in (
        (rows[1:], r"rows of shape \(11, 12\) for 12 images"),
        (2 * rows, "12 of 12 are not of length 1"),
        (rows * np.nan, "12 of 12 rows are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ImageIndex(wrong, photos)
    given = rows.copy()
    index = ImageIndex(given, photos)
    given[:] = 0
    np.testing.assert_array_equal(index.rows, rows)
    with pytest.raises(ValueError, match="an index without a model"):
        index.search(photos, 1)


def test_added_images_leave_the_rows_as_they_were(index, model, photos):
    before, new = index.rows.copy(), named(pixels(3, seed=1), first=N)
    assert index.neighbors(1).indices.max() < N
    both = named(np.concatenate([pixels(), new.images()]))
    assert index.add(both) == 3
    np.testing.assert_array_equal(index.rows[:N], before)
    np.testing.assert_allclose(index.rows[N:], index.embed(new), atol=1e-6)
    assert index.names == (*photos.names, *new.names)
    assert index.search(index.rows[[N]], 1).indices.tolist() == [[N]]
    assert index.add(both) == 0
    index.manifest.check(both.manifest)


@pytest.mark.on_one_backend
def test_what_is_gone_or_changed_is_left_out_if_asked(index, photos):
    rows, names = index.rows, index.names
    changed = photos.images()[3:].copy()
    changed[0] += 1
    now = ImageArray(changed, names=photos.names[3:])
    assert index.add(now, drop=True) == 1  # the others have the same pixels
    assert sorted(index.names) == sorted(now.names)
    np.testing.assert_array_equal(index.rows[:-1], rows[4:])
    assert index.add(photos, drop=True) == 4
    assert sorted(index.names) == sorted(names)
    assert index.add(photos.subset([5, 6]), drop=True) == 0
    np.testing.assert_array_equal(index.rows, rows[5:7])


def test_what_cannot_be_added_changes_nothing(index, photos):
    before = index.rows
    changed = named(np.concatenate([pixels()[:1], pixels(2, seed=1)]))
    with pytest.raises(ValueError, match=r"2 images with names of the index .* <1>\.jpg, <2>\.jpg"):
        index.add(changed)
    with pytest.raises(ValueError, match=r"\(5, 5\) pixels"):
        index.add(ImageArray(np.zeros((1, 5, 5, 3), "uint8")))
    assert index.rows is before
    assert index.names == photos.names


@pytest.mark.on_one_backend
def test_images_without_digests_are_new_or_the_same_object():
    images = list(pixels())
    unread = ImageDataset(images, SIDE, cache=False)
    index = ImageIndex.from_encoder(encoder(), unread)
    assert not np.any(index.search(unread, 1).indices[:, 0] == np.arange(N))
    with pytest.raises(ValueError, match="12 images with names of the index"):
        index.add(ImageDataset(images, SIDE, cache=False))


def test_a_model_that_is_trained_further_is_noticed(index, model, photos):
    model.encoder.layers[-1].bias.assign(np.ones(8))
    with pytest.raises(ValueError, match="weights have changed since the index was built"):
        index.search(photos, 1)
    index.search(index.rows, 1)


@pytest.mark.parametrize("center", [True, pytest.param(False, marks=pytest.mark.on_one_backend)])
def test_any_encoder_gives_an_index_without_training(photos, center):
    network = encoder()
    index = ImageIndex.from_encoder(network, photos, center=center, mirror=False)
    features = keras.ops.convert_to_numpy(network(photos.images()))
    features = features - features.mean(axis=0) if center else features
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(index.rows, expected, atol=1e-5)
    np.testing.assert_allclose(index.embed(photos), index.rows, atol=1e-5)
    np.testing.assert_allclose(
        index.embed(photos.subset([3])), index.rows[[3]], atol=1e-5, err_msg="the stored mean"
    )
    index = ImageIndex.from_encoder(network, photos, center=center)
    np.testing.assert_allclose(index.embed(photos), index.rows, atol=1e-5)
    assert np.all(index.search(pixels()[:, :, ::-1].copy(), 1).indices[:, 0] == np.arange(N))


@pytest.mark.on_one_backend
def test_one_image_has_no_center(photos):
    with pytest.raises(ValueError, match="one image and center=True"):
        ImageIndex.from_encoder(encoder(), photos.subset([0]))
    assert len(ImageIndex.from_encoder(encoder(), photos.subset([0]), center=False)) == 1


def test_nnclr_is_indexed_by_its_projector(photos):
    model = NNCLR(encoder(), DIM, 7, augmenter=keras.layers.GaussianNoise(0.1), seed=0)
    index = ImageIndex.from_model(model, photos, mirror=False)
    np.testing.assert_allclose(index.embed(photos), model.predict(photos.ordered(), verbose=0))
