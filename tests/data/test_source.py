"""All sources: indices, subsets, and pixels that cannot be changed."""

import numpy as np
import pytest
from image_files import numbered

from instdisc_core.data import ImageArray, ImageFolder

pytestmark = pytest.mark.framework_independent


def test_a_subset_with_an_image_twice_is_rejected():
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
            (np.arange(12) % 2 == 0, r"dtype bool\. Expected integers\. .*np\.flatnonzero"),
            ([0.0, 1.0], "dtype float64"),
            ([[0, 1]], r"shape \(1, 2\)"),
            ([-1, 0], r"indices from -1 to 0\. Expected values in \[0, 12\)"),
            ([0, 12], r"Expected values in \[0, 12\), one for each image\.$"),
        ):
            for read in (some.images, some.start, some.subset):
                with pytest.raises(ValueError, match=why):
                    read(wrong)
    with pytest.raises(ValueError, match=r"no indices\. Expected at least one"):
        source.subset([])


def test_pixels_of_a_source_cannot_be_changed(folder):
    for source in (ImageFolder(folder, 8), ImageArray(numbered(4))):
        with pytest.raises(ValueError, match="read-only"):
            source.image(0)[:] = 7
        source.images()[:] = 7
        assert not np.all(source.image(1) == 7)
