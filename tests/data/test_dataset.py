"""Data sets that can be indexed as sources."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from image_files import COLORS, numbered
from PIL import Image

from instdisc_core.data import ImageDataset, image_source

pytestmark = pytest.mark.framework_independent


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


def test_what_cannot_be_indexed_or_holds_no_images_is_rejected():
    with pytest.raises(ValueError, match=r"a generator\. Expected a data set with len"):
        ImageDataset((x for x in ()), 4)
    with pytest.raises(ValueError, match="an empty data set"):
        ImageDataset([], 4)
    with pytest.raises(ValueError, match=r"element 0 .*a dict with \['pixels'\] and without image"):
        ImageDataset([{"pixels": 1}], 4)


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


def test_data_sets_of_equal_length_are_told_apart():
    first, second = (ImageDataset(list(numbered(6) + shift), 2) for shift in (0, 1))
    assert first.manifest.fingerprint != second.manifest.fingerprint
    uncached = ImageDataset(list(numbered(6)), 2, cache=False)
    assert not uncached.manifest.is_complete
    assert first.manifest.is_complete


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_stays_flat_over_an_epoch_of_files(tmp_path):
    """20,000 names of 200 JPEG files: what is decoded, 300 kB per batch, must not stay."""
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


def test_a_thumbnail_is_made_from_the_image_as_the_data_set_has_it():
    pixels = np.zeros((50, 100, 3), "uint8")
    photos = ImageDataset([{"image": pixels}, {"image": pixels[:, :, 0]}], size=8)
    for i in range(2):
        assert photos.thumbnail(i).shape == (50, 100, 3)
        assert photos.thumbnail(i, side=20).shape == (10, 20, 3)


def test_a_split_of_hugging_face_without_labels_has_none():
    class Split:
        def __init__(self, *labels):
            self.labels = list(labels)
            self.features = {"label": SimpleNamespace(names=["x", "y"])}

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, item):
            return self.labels if item == "label" else {"image": np.full((8, 8, 3), 3, "uint8")}

    assert ImageDataset(Split(-1, -1), 8).labels is None
    assert ImageDataset(Split(1, 0), 8).labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"labels from -1 to 1 of 2 classes"):
        ImageDataset(Split(-1, 1), 8)
