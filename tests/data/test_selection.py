"""Which files of a folder are kept: without broken ones, copies and new files."""

import os
import tracemalloc

import numpy as np
import pytest
from image_files import COLORS, truncated, write

from instdisc_core.data import ImageFolder, Manifest

pytestmark = pytest.mark.framework_independent

# -- without a manifest


@pytest.mark.parametrize("cache", [True, False])
def test_broken_files_are_named_or_skipped(folder, cache):
    truncated(folder / "a" / "broken.jpg")
    (folder / "b" / "text.png").write_text("no image")
    (folder / "b" / "empty.gif").touch()
    if cache:
        with pytest.raises(ValueError, match="in which 3 files or folders cannot be read") as error:
            ImageFolder(folder, 8, cache=True)
        for name in ("a/broken.jpg", "b/text.png", "b/empty.gif", "truncated"):
            assert name in str(error.value)
    source = ImageFolder(folder, 8, corrupt="skip", cache=cache)
    assert len(source) == 12
    assert set(source.manifest.skipped) == {"a/broken.jpg", "b/text.png", "b/empty.gif"}
    assert np.array_equal(source.images()[0, 0, 0], COLORS[0])


def test_a_folder_of_broken_files_only_is_rejected(tmp_path):
    truncated(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"all of whose 1 image files are broken: x\.jpg"):
        ImageFolder(tmp_path, 8, corrupt="skip")


def test_copies_are_named_dropped_or_kept(folder):
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "0.png").read_bytes())
    with pytest.warns(UserWarning, match=r"1 of 13 files .* b/copy.png \(a copy of a/0.png\)"):
        assert len(ImageFolder(folder, 8)) == 13
    dropped = ImageFolder(folder, 8, duplicates="drop")
    assert dropped.manifest.skipped == {"b/copy.png": "a copy of a/0.png"}
    assert len(dropped) == len(dropped.images()) == 12
    assert len(ImageFolder(folder, 8, duplicates="keep")) == 13


def test_a_file_that_is_skipped_does_not_double_the_memory(folder):
    (folder / "a" / "1.png").write_text("no image")
    (folder / "b" / "0.png").write_bytes((folder / "a" / "0.png").read_bytes())
    size = 256
    tracemalloc.start()
    try:
        source = ImageFolder(folder, size, corrupt="skip", duplicates="drop", workers=1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.6 * 14 * 3 * size * size
    assert np.array_equal(source.images()[:, 0, 0], COLORS[[*range(0, 12, 2), *range(1, 12, 2)]])


# -- with a manifest


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "gone/m.csv",
            r"manifest='.*gone/m\.csv', in a folder that does not exist.*Create .*gone ",
        ),
        ("photos", r"photos, which cannot be read \(a folder, not a regular file\)"),
    ],
)
def test_a_manifest_that_cannot_be_is_named_before_any_image_is_read(
    folder, tmp_path, monkeypatch, name, why
):
    monkeypatch.setattr("instdisc_core.data.folder.scan", lambda *args: pytest.fail("read"))
    with pytest.raises(ValueError, match=f"Received: .*{why}"):
        ImageFolder(folder, 8, manifest=tmp_path / name)


def test_skipped_files_are_not_new(folder, tmp_path, recwarn):
    (folder / "b" / "text.png").write_text("no image")
    ImageFolder(folder, 8, corrupt="skip", manifest=tmp_path / "m.csv")
    again = ImageFolder(folder, 8, manifest=tmp_path / "m.csv")
    assert not recwarn.list
    assert again.manifest.skipped.keys() == {"b/text.png"}


@pytest.mark.parametrize("cache", [True, False])
def test_a_folder_that_changed_since_its_manifest(folder, tmp_path, cache):
    path = tmp_path / "photos.csv"
    ImageFolder(folder, 8, manifest=path, cache=cache)
    written = path.read_text()
    again = ImageFolder(folder, 8, manifest=path, cache=cache)
    assert again.manifest == Manifest.load(path)

    write(folder / "a" / "00.png", COLORS[20])
    with pytest.warns(UserWarning, match="1 files or folders .* left out: a/00.png"):
        kept = ImageFolder(folder, 8, manifest=path, cache=cache)
    assert kept.names == again.names

    write(folder / "a" / "4.png", COLORS[21])
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"1 changed: a/4\.png"),
    ):
        ImageFolder(folder, 8, manifest=path, cache=cache)
    (folder / "b" / "7.png").unlink()
    with pytest.raises(
        ValueError, match=r"in which 1 of the manifest's 12 files are missing: b/7\.png"
    ):
        ImageFolder(folder, 8, manifest=path, cache=cache)
    assert path.read_text() == written, "the manifest is never overwritten"


def test_a_copied_folder_is_the_same_data(folder, tmp_path):
    path = tmp_path / "photos.csv"
    ImageFolder(folder, 8, manifest=path)
    for file in folder.rglob("*.png"):
        os.utime(file, (1, 1))
    assert len(ImageFolder(folder, 8, manifest=path, cache=False)) == 12


def test_unchanged_files_are_not_read_again(folder, tmp_path, monkeypatch):
    path = tmp_path / "photos.csv"
    ImageFolder(folder, 8, manifest=path)
    monkeypatch.setattr("instdisc_core.data.scanning.digest", lambda data: pytest.fail("read"))
    assert len(ImageFolder(folder, 8, manifest=path, cache=False)) == 12
