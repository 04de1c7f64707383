"""Images in memory as a source."""

import numpy as np
import pytest

from instdisc_core.data import ImageArray, image_source

pytestmark = pytest.mark.framework_independent


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
def test_what_is_no_array_of_images_is_rejected(images, match):
    with pytest.raises(ValueError, match=match):
        ImageArray(images)


def test_labels_that_are_names_are_numbered_as_the_class_names_say():
    images = np.zeros((3, 2, 2, 3), "uint8")
    source = ImageArray(images, ["dog", "cat", "dog"], class_names=["dog", "fox", "cat"])
    assert source.labels.tolist() == [0, 2, 0]
    assert [source.class_names[i] for i in source.labels] == ["dog", "cat", "dog"]
    for labels in (["dog", "cow", "cat"], [0, 1, -1], [0, 1, 3]):
        with pytest.raises(ValueError, match=r"Received: labels.*Expected"):
            ImageArray(images, labels, class_names=["dog", "fox", "cat"])
