"""Which images are found for a query."""

import numpy as np
import pytest
from problems import named, on_a_circle

from instdisc_core import BankOps, MemoryBank
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import Retrieval, retrieve


def test_neighbors_are_the_nearest_and_never_the_query_itself():
    source = named(9)
    found = retrieve(on_a_circle(9), source, on_a_circle(9), source, k=2, indices=[4, 0])
    assert [set(row) for row in found.neighbors.tolist()] == [{3, 5}, {1, 2}]
    assert found.names()[1] == ("<0>.jpg", ["<1>.jpg", "<2>.jpg"])
    np.testing.assert_allclose(found.similarities[0], np.cos(np.pi / 8), rtol=1e-5)


def test_all_of_the_gallery_but_the_query_itself_can_be_found():
    gallery, rows = named(5), on_a_circle(5)
    assert retrieve(rows, gallery, rows, gallery, k=4).neighbors.shape == (5, 4)
    other = ImageArray(255 - gallery.images())
    assert retrieve(rows, other, rows, gallery, k=5).neighbors.shape == (5, 5)
    mixed = ImageArray(np.stack([gallery.image(0), other.image(1)]), names=["<0>.jpg", "new"])
    assert retrieve(rows[:2], mixed, rows, gallery, k=5, indices=[1]).neighbors.shape == (1, 5)
    for queries, most in ((gallery, 4), (named(5), 4), (other, 5), (mixed, 4)):
        with pytest.raises(ValueError, match=rf"k={most + 1}\. Expected at most {most}"):
            retrieve(rows[: len(queries)], queries, rows, gallery, k=most + 1)


def test_where_the_query_s_own_row_is_far_off_the_last_one_is_left_out():
    """A bank's row can lag so far behind that the image itself is not among the nearest."""
    source, rows = named(5), on_a_circle(5)
    found = retrieve(-rows[[0]], source.subset([0]), rows, source, k=2)
    assert found.neighbors.tolist() == [[4, 3]]
    np.testing.assert_allclose(found.similarities, [[1, np.cos(np.pi / 4)]], atol=1e-6)


def test_of_many_equal_images_none_is_its_own_neighbor():
    source, same = named(5), np.tile(np.float32([[1, 0]]), (5, 1))
    found = retrieve(same, source, same, source, k=2)
    assert found.neighbors.shape == (5, 2)
    assert not np.any(found.neighbors == np.arange(5)[:, None])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_gallery_is_checked_against_the_bank_s_manifest(dtype):
    source, rows = named(5), on_a_circle(5)
    bank = MemoryBank(5, 2, dtype=dtype)
    bank.rows.assign(rows)
    other = ImageArray(255 - source.images(), names=source.names)
    for gallery in (source, other):
        found = retrieve(rows, source, bank, gallery, k=1)  # it does not know whose rows it has
        assert found.neighbors[0].tolist() == [1 if gallery is source else 0]
    bank.manifest = named(5).manifest
    np.testing.assert_array_equal(
        retrieve(rows, source, bank, source, k=4).neighbors,
        retrieve(rows, source, bank.rows, source, k=4).neighbors,
    )
    with pytest.raises(ValueError, match=r"a gallery with 5 images .* 5 changed: <0>\.jpg, <1>"):
        retrieve(rows, source, bank, other, k=1)
    with pytest.raises(ValueError, match=r"a gallery with 4 images .* 1 missing: <4>\.jpg"):
        retrieve(rows, source, bank, source.subset(range(4)), k=1)


def test_queries_and_galleries_that_are_not_finite_are_named():
    source, rows = named(9), np.eye(9, dtype="float32")
    wrong = rows.copy()
    wrong[[2, 4], 0] = np.nan, np.inf
    expected = r"features in which 2 of {} rows are not finite: {}\."
    with pytest.raises(ValueError, match=expected.format(9, "2, 4")):
        retrieve(wrong, source, rows, source, k=1)
    with pytest.raises(ValueError, match=expected.format(3, "4, 2")):
        retrieve(wrong, source, rows, source, k=1, indices=[4, 1, 2])
    assert retrieve(wrong, source, rows, source, k=1, indices=[1, 3]).neighbors.shape == (2, 1)
    with pytest.raises(ValueError, match="gallery_" + expected.format(9, "2, 4")):
        retrieve(rows, source, wrong, source, k=1)


def test_best_and_worst_are_by_agreement():
    source = named(6, labels=[0, 0, 0, 1, 0, 1])
    found = retrieve(on_a_circle(6), source, on_a_circle(6), source, k=1)
    assert found.agreement[5] == 0
    assert found.agreement[0] == 1
    assert found.worst(1).agreement[0] == 0
    assert found.best(2).agreement.tolist() == [1, 1]
    assert len(found.best(100).indices) == 6


def test_agreement_counts_first_and_similarity_after_it():
    source = named(4, labels=[0, 0, 1, 1])
    found = Retrieval(
        source,
        source,
        indices=np.array([0, 1, 2, 3]),
        neighbors=np.array([[1, 2], [0, 0], [3, 3], [0, 1]]),
        similarities=np.array([[0.9, 0.8], [0.2, 0.1], [0.4, 0.3], [0.7, 0.6]]),
    )
    assert found.agreement.tolist() == [0.5, 1, 1, 0]
    assert found.best(4).indices.tolist() == [2, 1, 0, 3]
    worst = found.worst(3)
    assert worst.indices.tolist() == [3, 0, 1]
    assert worst.neighbors.tolist() == [[0, 1], [1, 2], [0, 0]]
    assert worst.similarities.tolist() == [[0.7, 0.6], [0.9, 0.8], [0.2, 0.1]]
    bare = Retrieval(named(4), named(4), found.indices, found.neighbors, found.similarities)
    assert bare.agreement is None
    assert bare.best(2).indices.tolist() == [0, 3]


def test_lists_are_taken_and_no_query_finds_nothing():
    source, rows = named(9), on_a_circle(9)
    found = retrieve(rows, source, rows, source, k=2, indices=[4, 0])
    same = retrieve(rows.tolist(), source, rows.tolist(), source, k=2, indices=range(4, -1, -4))
    np.testing.assert_array_equal(same.neighbors, found.neighbors)
    none = retrieve(rows, source, rows, source, k=2, indices=[])
    assert none.neighbors.shape == none.similarities.shape == (0, 2)
    assert none.names() == []


def test_what_was_found_can_be_compared_and_hashed():
    source, rows = named(9), on_a_circle(9)
    found, other = (retrieve(rows, source, rows, source, k=2) for _ in range(2))
    assert len({found, other, found}) == 2
    assert found != other


def test_too_few_embeddings_and_too_large_a_k_are_rejected():
    source = named(5)
    with pytest.raises(ValueError, match=r"features of shape \(4, 2\) for 5 images"):
        retrieve(on_a_circle(4), source, on_a_circle(5), source)
    with pytest.raises(ValueError, match=r"k=5. Expected at most 4"):
        retrieve(on_a_circle(5), source, on_a_circle(5), source, k=5)


def test_a_bank_is_searched_through_its_own_primitives():
    class Counting(BankOps):
        calls = 0

        def top_k(self, *args, **kwargs):
            self.calls += 1
            return super().top_k(*args, **kwargs)

    source, own, given = named(6), Counting(), Counting()
    bank = MemoryBank(6, 2, backend=own)
    retrieve(on_a_circle(6), source, bank, source, k=2)
    assert (own.calls, given.calls) == (1, 0)
    retrieve(on_a_circle(6), source, bank, source, k=2, backend=given)
    assert (own.calls, given.calls) == (1, 1)


def test_queries_of_classes_that_the_gallery_lacks():
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), "uint8")
    gallery = ImageArray(images, ["a", "c"] * 3)
    queries = ImageArray(images[:2] + 1, ["a", "b"])
    rows = np.eye(6, dtype="float32")
    found = retrieve(rows[:2], queries, rows, gallery, k=1)
    np.testing.assert_array_equal(found.agreement, [1, 0])
    assert len(list(found.tiles())) == 2
    assert retrieve(rows[:2], ImageArray(images[:2], [0, 1]), rows, gallery, 1).labels is None
