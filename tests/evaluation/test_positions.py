"""Which images of one source are in another, and that none is its own neighbor."""

import numpy as np
from problems import named, on_a_circle

from instdisc_core.data import ImageArray, ImageDataset
from instdisc_core.evaluation import positions_in, retrieve


def test_an_image_is_itself_by_its_data():
    """It is found neither in a second object of the same data nor from a part of it."""
    gallery, rows = named(9), on_a_circle(9)
    unread = ImageDataset(list(gallery.images()), 4, cache=False)
    later = ImageArray(gallery.images(range(4, 9)), names=["x", *gallery.names[5:]])
    for queries, own in (
        (gallery, range(9)),
        (named(9), range(9)),
        (named(9).subset([7, 2, 5]), [7, 2, 5]),
        (ImageArray(255 - gallery.images(), names=gallery.names), [-1] * 9),
        (ImageArray(gallery.images()), [-1] * 9),  # other names
        (unread, [-1] * 9),  # no digests
        (later, [-1, 5, 6, 7, 8]),
    ):
        assert positions_in(gallery, queries).tolist() == list(own)
        angles = [i if i >= 0 else 3 for i in own]
        found = retrieve(rows[angles], queries, rows, gallery, k=1).neighbors[:, 0]
        for i, j in zip(own, found, strict=True):
            assert j == 3 if i < 0 else abs(i - j) == 1
    assert positions_in(unread, unread).tolist() == list(range(9))
    other = ImageDataset(list(255 - gallery.images()), 4, cache=False)
    assert positions_in(unread, other).tolist() == [-1] * 9, "equal names are not equal images"
    some = retrieve(rows[[7, 2, 5]], gallery.subset([7, 2, 5]), rows, gallery, 1, indices=[2, 0])
    assert some.names()[0][0] == "<5>.jpg"
    assert np.abs(some.neighbors[:, 0] - [5, 7]).tolist() == [1, 1]
