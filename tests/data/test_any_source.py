"""A source from a folder, an array, a data set or a stream."""

import pytest
from image_files import numbered

from instdisc_core.data import ImageArray, image_source

pytestmark = pytest.mark.framework_independent


class Stream(list):
    """As tf.data's: elements one after the other."""

    as_numpy_iterator = list.__iter__


def test_labels_of_a_stream_are_taken_given_or_left():
    stream = Stream(zip(numbered(3), [7, 8, 9], strict=True))
    assert image_source(stream).labels.tolist() == [7, 8, 9]
    assert image_source(stream, labels=None).labels is None
    assert image_source(stream, labels=[1, 2, 3]).labels.tolist() == [1, 2, 3]
    assert image_source(Stream(numbered(3))).labels is None


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


def test_labels_that_are_given_are_numbered_by_name():
    images = list(numbered(4, size=8))
    assert image_source(images, size=4, labels=list("abab")).class_names == ["a", "b"]


def test_an_array_of_another_size_is_resized():
    assert image_source(numbered(4, size=8), size=4).size == (4, 4)


def test_a_folder_takes_no_labels():
    with pytest.raises(ValueError, match="labels for a folder"):
        image_source("somewhere", size=4, labels=[1])


def test_a_size_is_asked_for_where_images_may_differ_in_size():
    with pytest.raises(ValueError, match="no size"):
        image_source(list(numbered(1, size=4)))
