"""The page of an index."""

import json

import numpy as np
import pytest
from image_files import two_classes

from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.evaluation import unit
from instdisc_core.index import ImageIndex
from instdisc_core.index.contents import typical_first

pytestmark = pytest.mark.on_one_backend


@pytest.fixture
def photos(tmp_path):
    return ImageFolder(two_classes(tmp_path / "photos"), 8, verbose=False)


@pytest.fixture
def index(photos):
    return ImageIndex(unit(np.random.default_rng(0).standard_normal((12, 5))), photos)


def test_a_page_shows_what_the_index_finds(index, photos, tmp_path):
    places = np.random.default_rng(1).random((12, 2))
    index.save_page(
        tmp_path / "page", photos, "Mine", 3, 1.0, num_outliers=4, num_clusters=2, positions=places
    )
    script = (tmp_path / "page" / "page" / "data.js").read_text()
    data = json.loads(script.removeprefix("const PAGE = ").rstrip(";\n"))
    scores, neighbors = index.neighbors(3)
    assert data["neighbors"] == neighbors.ravel().tolist()
    assert data["scores"] == np.round(1000 * scores.astype("float64")).ravel().tolist()
    assert (data["title"], data["k"], data["names"]) == ("Mine", 3, list(photos.names))
    assert (data["labels"], data["classes"]) == (photos.labels.tolist(), ["a", "b"])
    assert data["duplicates"] == [group.tolist() for group in index.near_duplicates(1.0).groups]
    assert data["outliers"] == index.outliers(4).indices.tolist()
    assert sorted(i for group in data["clusters"] for i in group) == list(range(12))
    assert len(data["map"]) == 24
    assert data["originals"] == "../photos/"


def test_the_most_typical_of_a_cluster_is_first(index):
    groups = typical_first(index, 3)
    assert len(groups[0]) == max(map(len, groups))
    found = index.clusters(3)
    assert [group[0] for group in groups] == found.centers.tolist()
    for group in groups:
        cosines = index.rows[group] @ index.rows[group].mean(axis=0)
        assert np.all(np.diff(cosines) <= 0)


def test_one_image_and_images_in_memory_have_a_page_too(tmp_path):
    images = np.zeros((2, 8, 8, 3), "uint8")
    images[1] = 9
    for n in (1, 2):
        source = ImageArray(images[:n])
        ImageIndex(np.eye(n, 3), source).save_page(tmp_path / "page", source)
        data = (tmp_path / "page" / "page" / "data.js").read_text()
        assert '"map":null' in data
        assert "originals" not in data
    with pytest.raises(ValueError, match="a page"):
        ImageIndex(np.eye(1, 3), ImageArray(images[:1])).save_page(tmp_path / "page", source)
