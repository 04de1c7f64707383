"""Tables and indexes of vectors, each read by the tools that it is for."""

import csv
import os
import sys

import numpy as np
import pytest

from instdisc_core.data import ImageArray
from instdisc_core.exports import export
from instdisc_core.index import ImageIndex

pytestmark = pytest.mark.on_one_backend  # what is written are NumPy arrays


@pytest.fixture(scope="module")
def parquet(index, tmp_path_factory):
    pytest.importorskip("pyarrow", reason="an extra")
    path = tmp_path_factory.mktemp("parquet") / "photos.parquet"
    export(index, path, folder="photos", k=3, clusters=2)
    return path


def test_a_table_has_a_row_for_each_image(index, tmp_path):
    export(index, tmp_path / "all.npz", folder="photos", k=3, clusters=2)
    scores, neighbors = index.neighbors(3)
    with np.load(tmp_path / "all.npz") as arrays:
        assert arrays["name"].tolist() == list(index.names)
        assert arrays["path"][4] == "photos/a/4.jpg"
        np.testing.assert_array_equal(arrays["vector"], index.rows)
        np.testing.assert_array_equal(arrays["neighbors"], neighbors)
        np.testing.assert_array_equal(arrays["distances"], 1 - scores)
        np.testing.assert_array_equal(arrays["cluster"], index.clusters(2).labels)
        groups = arrays["near_duplicate_group"]
    for number, members in enumerate(index.near_duplicates().groups):
        assert np.flatnonzero(groups == number).tolist() == members.tolist()
    assert groups[0] == groups[-1] == 0, "the brightened copy"
    assert -1 in groups
    export(index, tmp_path / "all.csv", k=50)
    rows = list(csv.DictReader((tmp_path / "all.csv").read_text().splitlines()))
    np.testing.assert_allclose(np.float32(rows[4]["vector"].split()), index.rows[4], rtol=1e-6)
    assert len(rows[4]["neighbors"].split()) == len(index) - 1
    assert "cluster" not in rows[4]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_one_image_has_no_neighbors(suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="an extra")
    one = ImageIndex(np.eye(1), ImageArray(np.zeros((1, 4, 4, 3), "uint8"), names=["a.jpg"]))
    path = tmp_path / f"one{suffix}"
    export(one, path)
    if suffix == ".npz":
        with np.load(path) as arrays:
            assert arrays["neighbors"].shape == arrays["distances"].shape == (1, 0)
    elif suffix == ".csv":
        (row,) = csv.DictReader(path.read_text().splitlines())
        assert (row["name"], row["neighbors"], row["near_duplicate_group"]) == ("a.jpg", "", "-1")
    else:
        import pyarrow.parquet

        (row,) = pyarrow.parquet.read_table(path).to_pylist()
        assert row["neighbors"] == {"ids": [], "distances": []}


def test_parquet_keeps_every_name_that_is_utf8(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="an extra")
    names = ["a\tb.jpg", "a\u202eb.jpg", os.fsdecode(b"caf\xe9.jpg")]
    images = ImageArray(np.zeros((3, 4, 4, 3), "uint8"), names=names)
    export(ImageIndex(np.eye(3), images), tmp_path / "all.parquet")
    found = parquet.read_table(tmp_path / "all.parquet").column("name").to_pylist()
    assert found == [*names[:2], "caf\ufffd.jpg"]


def test_parquet_has_the_columns_that_embedding_atlas_reads(index, parquet):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(parquet)
    assert table.column_names == [
        "name", "path", "vector", "neighbors", "near_duplicate_group", "cluster"
    ]  # fmt: skip
    found = table["neighbors"].to_pylist()
    scores, neighbors = index.neighbors(3)
    assert [row["ids"] for row in found] == neighbors.tolist()
    np.testing.assert_array_equal([row["distances"] for row in found], 1 - scores)


def test_lancedb_searches_the_parquet_file(index, parquet, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="not a dependency")
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(parquet)
    table = lancedb.connect(tmp_path).create_table("photos", rows)
    found = table.search(index.rows[5]).distance_type("cosine").limit(4).to_arrow()
    neighbors = [index.names[j] for j in index.neighbors(3, [5]).indices[0]]
    assert found["name"].to_pylist() == [index.names[5], *neighbors]


def test_faiss_finds_the_neighbors_of_the_index(index, tmp_path):
    faiss = pytest.importorskip("faiss", reason="an extra")
    export(index, tmp_path / "photos.faiss")
    scores, found = faiss.read_index(str(tmp_path / "photos.faiss")).search(index.rows, 4)
    np.testing.assert_array_equal(found[:, 0], np.arange(len(index)))
    np.testing.assert_array_equal(found[:, 1:], index.neighbors(3).indices)
    np.testing.assert_allclose(scores[:, 1:], index.neighbors(3).scores, atol=1e-6)


def test_tensorboard_s_projector_serves_the_folder(index, tmp_path):
    pytest.importorskip("tensorboard", reason="not a dependency")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    export(index, tmp_path / "logs", clusters=2)
    logs = str(tmp_path / "logs")
    provider = MultiplexerDataProvider(EventMultiplexer(), logs)
    served = ProjectorPlugin(TBContext(logdir=logs, data_provider=provider)).get_plugin_apps()

    def get(route):
        return Client(served[route]).get("/?run=.&name=images")

    (about,) = get("/info").json["embeddings"]
    assert about["tensorShape"] == list(index.rows.shape)
    rows = np.frombuffer(get("/tensor").data, "float32").reshape(index.rows.shape)
    np.testing.assert_allclose(rows, index.rows, atol=1e-5)
    lines = get("/metadata").text.splitlines()
    assert lines[0].split("\t") == ["name", "near_duplicate_group", "cluster"]
    assert [line.split("\t")[0] for line in lines[1:]] == list(index.names)


def test_a_missing_package_is_named_before_anything_is_computed(index, tmp_path, monkeypatch):
    monkeypatch.setattr(type(index), "near_duplicates", None)
    for module, suffix, extra in (("pyarrow", "parquet", "parquet"), ("faiss", "faiss", "faiss")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"{module} .*'instdisc-core\[{extra}\]'"):
            export(index, tmp_path / f"all.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "format", "message"),
    [
        ("all.txt", None, r"the suffix of the file='.txt'. Expected one of '.csv'"),
        ("nowhere/all.csv", None, "whose folder does not exist"),
        ("all.csv", "parquet", "Expected a file that ends in .parquet"),
        ("all.csv", "saved-model", "Expected a folder"),
        ("all", "hdf5", "format='hdf5'"),
    ],
)
def test_a_wrong_path_is_an_error(index, tmp_path, path, format, message):
    with pytest.raises(ValueError, match=message):
        export(index, tmp_path / path, format)
