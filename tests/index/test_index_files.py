"""An index as files: complete, verified, replaced at once, and readable without this package."""

import csv
import json

import keras
import numpy as np
import pytest
from damage import cut, flip
from photo_sets import SIDE, N, encoder, named, pixels

from instdisc_core.files import PART
from instdisc_core.index import ImageIndex, files

pytest.importorskip("safetensors", reason="what rows are saved in")


def kept(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_saved_index_is_the_same_in_another_process(index, photos, tmp_path):
    index.save(tmp_path / "found")
    again = ImageIndex.load(tmp_path / "found")
    np.testing.assert_array_equal(again.rows, index.rows)
    again.manifest.check(index.manifest)
    assert again.size == index.size == (SIDE, SIDE)
    assert again.mirror is index.mirror is True
    np.testing.assert_allclose(again.embed(photos), index.rows, atol=1e-6)
    new = named(pixels(2, seed=1), first=N)
    assert again.add(new) == 2
    np.testing.assert_array_equal(again.rows[:N], index.rows)


def test_the_mean_of_an_encoder_s_features_is_saved(photos, tmp_path):
    index = ImageIndex.from_encoder(encoder(), photos)
    index.save(tmp_path)
    np.testing.assert_allclose(ImageIndex.load(tmp_path).embed(photos), index.rows, atol=1e-5)


@pytest.mark.on_one_backend
def test_it_is_read_with_numpy_alone_and_holds_no_pickle(index, tmp_path):
    index.save(tmp_path)
    about = json.loads((tmp_path / "index.json").read_bytes())
    data = (tmp_path / about["rows"]["file"]).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    rows = np.frombuffer(data, "<f4", offset=start).reshape(about["images"], -1)
    np.testing.assert_array_equal(rows, index.rows)
    lines = list(csv.reader((tmp_path / about["manifest"]["file"]).read_text().splitlines()))
    assert [line[1] for line in lines[1 : N + 1]] == list(index.names)
    assert kept(tmp_path) == [
        "encoder-1.keras",
        "index.json",
        "manifest-1.csv",
        "rows-1.safetensors",
    ]


@pytest.mark.on_one_backend
def test_it_is_replaced_at_once(index, tmp_path, monkeypatch):
    """Killed before the last step, the old index is there, and what was written is removed."""
    index.save(tmp_path)
    before = index.rows
    index.add(named(pixels(2, seed=1), first=N))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            index.save(tmp_path)
    np.testing.assert_array_equal(ImageIndex.load(tmp_path).rows, before)
    assert "rows-2.safetensors" in kept(tmp_path)
    (tmp_path / f"{PART}1-rows-9.safetensors").touch()
    index.save(tmp_path)
    assert len(ImageIndex.load(tmp_path)) == N + 2
    assert kept(tmp_path) == [
        "encoder-3.keras",
        "index.json",
        "manifest-3.csv",
        "rows-3.safetensors",
    ]
    assert not list(tmp_path.glob(f"{PART}*"))


@pytest.mark.on_one_backend
@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.unlink()])
@pytest.mark.parametrize("kind", ["index.json", "rows", "manifest", "encoder"])
def test_a_damaged_file_is_found(tmp_path, kind, damage):
    ImageIndex.from_encoder(encoder(), named(pixels(3))).save(tmp_path)
    (path,) = (path for path in tmp_path.iterdir() if path.name.startswith(kind))
    damage(path)
    with pytest.raises(ValueError, match=r"an index that is damaged|holds no index\.json"):
        ImageIndex.load(tmp_path)


@pytest.mark.on_one_backend
def test_an_index_of_another_version_is_not_called_damaged(index, tmp_path):
    index.save(tmp_path)
    about = files.read_record(tmp_path / "index.json")
    files.write_record(tmp_path / "index.json", about | {"format": 2})
    with pytest.raises(ValueError, match="an index of format 2") as raised:
        ImageIndex.load(tmp_path)
    assert not isinstance(raised.value, files.DamagedIndex)


@pytest.mark.on_one_backend
def test_an_index_that_is_replaced_while_it_is_read_is_read_again(index, tmp_path, monkeypatch):
    index.save(tmp_path)
    verified = files._verified

    def replaced(folder, entry):
        monkeypatch.setattr(files, "_verified", verified)
        index.save(tmp_path)
        return verified(folder, entry)

    monkeypatch.setattr(files, "_verified", replaced)
    np.testing.assert_array_equal(ImageIndex.load(tmp_path).rows, index.rows)


@pytest.mark.on_one_backend
def test_a_file_elsewhere_is_never_read(index, tmp_path):
    index.save(tmp_path)
    about = files.read_record(tmp_path / "index.json")
    about["rows"]["file"] = "../rows-1.safetensors"
    files.write_record(tmp_path / "index.json", about)
    with pytest.raises(ValueError, match="the file name"):
        ImageIndex.load(tmp_path)


@pytest.mark.on_one_backend
def test_rows_without_a_model_are_an_index_too(photos, tmp_path):
    ImageIndex(np.eye(N), photos).save(tmp_path)
    assert kept(tmp_path) == ["index.json", "manifest-1.csv", "rows-1.safetensors"]
    assert ImageIndex.load(tmp_path).model is None


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="an encoder written in PyTorch")
def test_an_encoder_that_would_be_a_pickle_is_left_out(photos, tmp_path):
    import torch

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * SIDE * SIDE, 8)

        def forward(self, images):
            return self.layer(images.flatten(1))

    index = ImageIndex.from_encoder(Flat(), photos, preprocessing="torch")
    with pytest.warns(UserWarning, match="a torch.nn.Module is saved as a pickle"):
        index.save(tmp_path)
    assert not list(tmp_path.glob("encoder*"))
    again = ImageIndex.load(tmp_path, model=index.model)
    np.testing.assert_allclose(again.embed(photos), index.rows, atol=1e-6)
    ImageIndex.load(tmp_path).save(tmp_path / "copy")
    other = ImageIndex.from_encoder(Flat(), photos, preprocessing="torch").model
    for folder in (tmp_path, tmp_path / "copy"):
        with pytest.raises(ValueError, match="whose rows are from other weights"):
            ImageIndex.load(folder, model=other)


def test_a_model_of_other_weights_is_rejected_and_an_equal_one_taken(index, model, tmp_path):
    index.save(tmp_path)
    assert ImageIndex.load(tmp_path, model=model).model.encoder is model.encoder
    again = ImageIndex.load(tmp_path).model
    assert ImageIndex.load(tmp_path, model=again).model is again
    weight = model.encoder.weights[0]
    weight.assign(weight + 1)
    with pytest.raises(ValueError, match="whose rows are from other weights"):
        ImageIndex.load(tmp_path, model=model)
