"""Folders of images: their order, classes and names, what they print, and files that change."""

import io
import os
import sys

import numpy as np
import pytest
from image_files import COLORS, two_classes, write

from instdisc_core.data import ImageFolder, Manifest, image_source
from instdisc_core.data.decoding import FORMATS

pytestmark = pytest.mark.framework_independent


def test_a_folder_of_classes(folder):
    source = ImageFolder(folder, 8)
    assert source.names[:6] == tuple(f"a/{i}.png" for i in (0, 2, 4, 6, 8, 10))
    assert source.class_names == ["a", "b"]
    assert source.labels.tolist() == [0] * 6 + [1] * 6
    images = source.images()
    assert images.shape == (12, 8, 8, 3)
    assert images.dtype == np.uint8
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    assert np.array_equal(images[:, 0, 0], COLORS[order])


def test_classes_can_be_those_of_another_folder(folder):
    (folder.parent / "one").mkdir()
    (folder / "b").rename(folder.parent / "one" / "b")
    one = ImageFolder(folder.parent / "one", 8, class_names=["a", "b"])
    assert one.labels.tolist() == [1] * 6
    assert ImageFolder(folder.parent / "one", 8).labels is None, "one class is no class"
    with pytest.raises(ValueError, match=r"classes b\. Expected some of a, c"):
        ImageFolder(folder.parent / "one", 8, class_names=["a", "c"])


@pytest.mark.parametrize("odd", ["1²3.png", "\u06612.png", "01.png", os.fsdecode(b"caf\xe9.png")])
def test_odd_names_have_a_place_and_come_back(tmp_path, odd):
    for name in ("a.png", "1.png", "001.png", odd):
        write(tmp_path / "photos" / name)
    source = ImageFolder(tmp_path / "photos", 4, duplicates="keep", manifest=tmp_path / "m.csv")
    assert ImageFolder(tmp_path / "photos", 4, manifest=tmp_path / "m.csv").names == source.names
    assert odd in source.names
    assert Manifest.from_array(source.manifest.to_array()) == source.manifest
    assert source.names.index("001.png") < source.names.index("1.png"), "ties by name"


def test_a_flat_folder_has_no_labels_and_counts_as_people_do(tmp_path):
    for i in (10, 9, 1):
        write(tmp_path / f"{i}.jpg")
    write(tmp_path / "deep" / "er" / "x.JPEG")
    write(tmp_path / ".hidden" / "y.jpg")
    source = ImageFolder(tmp_path, (4, 6), duplicates="keep")
    assert source.names == ("1.jpg", "9.jpg", "10.jpg", "deep/er/x.JPEG")
    assert source.labels is None
    assert source.image(0).shape == (4, 6, 3)


@pytest.mark.parametrize("cache", [True, False])
def test_cached_or_not_the_pixels_are_the_same(folder, cache):
    source, other = ImageFolder(folder, 8, cache=cache), ImageFolder(folder, 8)
    assert (source._pixels is not None) == cache
    assert np.array_equal(source.images([3, 1]), other.images()[[3, 1]])
    assert source.manifest.fingerprint == other.manifest.fingerprint


@pytest.mark.parametrize("skip", [False, True])
def test_files_are_read_in_several_rounds(folder, monkeypatch, skip):
    if skip:
        (folder / "a" / "1.png").write_text("no image")
    whole = ImageFolder(folder, 8, corrupt="skip")
    monkeypatch.setattr("instdisc_core.data.scanning.SLAB", 5)
    slabs = ImageFolder(folder, 8, corrupt="skip")
    assert slabs.manifest == whole.manifest
    assert slabs.manifest.is_complete
    assert np.array_equal(slabs.images(), whole.images())


def test_subfolders_need_not_be_classes(folder):
    assert ImageFolder(folder, 8).class_names == ["a", "b"]
    for source in (ImageFolder(folder, 8, labels=None), image_source(folder, 8, labels=None)):
        assert source.labels is None
        assert source.class_names is None
    with pytest.raises(ValueError, match="class_names for images without labels"):
        ImageFolder(folder, 8, labels=None, class_names=["a", "b"])


# -- what is wrong with a folder


def test_a_file_that_breaks_later_is_named(folder):
    source = ImageFolder(folder, 8, cache=False)
    (folder / source.names[4]).write_text("no image")
    with pytest.raises(ValueError, match=rf"{source.names[4]}, instance 4, which cannot be read"):
        source.batches(12, seed=0)[0]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], "it is empty"),
        (["a.txt", "b.txt", "c.md"], "2 with .txt, 1 with .md"),
        (["a.txt", "noend"], "1 with no suffix"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(tmp_path, files, what):
    for name in files:
        (tmp_path / name).write_text("text")
    with pytest.raises(ValueError, match=f"holds no images: .*{what}"):
        ImageFolder(tmp_path, 8)


def test_a_path_that_is_not_a_folder_is_rejected(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which does not exist"):
        ImageFolder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match="which is not a folder"):
        ImageFolder(tmp_path / "file", 8)


def test_a_single_image_can_be_embedded_but_not_trained_on(tmp_path):
    write(tmp_path / "only.jpg")
    source = ImageFolder(tmp_path, 8)
    assert source.ordered()[0][0].shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"one image, 'only.jpg'. Expected at least 2"):
        source.batches(2, seed=0)


@pytest.mark.parametrize("name", ["corrupt", "duplicates", "cache", "labels"])
def test_choices_are_listed(folder, name):
    with pytest.raises(ValueError, match=f"Received: {name}='perhaps'. Expected one of"):
        ImageFolder(folder, 8, **{name: "perhaps"})


@pytest.mark.parametrize("size", [0, (8, -1), 2.5])
def test_sizes_are_checked(folder, size):
    with pytest.raises(ValueError, match="Received: size="):
        ImageFolder(folder, size)


# -- what it says


def test_a_line_says_how_many_were_found_and_skipped_and_where_the_list_is(folder, capsys):
    ImageFolder(folder, 8)
    assert capsys.readouterr().out == f"Found 12 images in 2 classes in {folder}; skipped 0.\n"
    (folder / "a" / "text.png").write_text("no image")
    options = {"corrupt": "skip", "labels": None, "manifest": folder.parent / "m.csv"}
    for _ in range(2):  # written, and read
        ImageFolder(folder, 8, **options)
        assert capsys.readouterr().out == (
            f"Found 12 images in {folder}; skipped 1: a/text.png (not an image in one of the "
            f"formats {', '.join(FORMATS)}). All are in {folder.parent / 'm.csv'}.\n"
        )
    ImageFolder(folder, 8, **options, verbose=False)
    assert capsys.readouterr().out == ""


def test_photos_in_formats_that_are_not_read_are_counted(folder, capsys):
    for name in ("1.HEIC", "a/2.heic", "b/3.CR2", "notes.txt"):
        (folder / name).write_bytes(b"")
    ImageFolder(folder, 8)
    said = (
        "skipped 0. Formats that are not read: 2 .heic, 1 .cr2 files. Convert them to JPEG first."
    )
    assert said in capsys.readouterr().out


def test_reading_many_files_shows_how_far_it_is(folder, capsys, monkeypatch):
    ImageFolder(folder, 8)
    assert "12/12" not in capsys.readouterr().out, "few files"
    monkeypatch.setattr("instdisc_core.data.scanning.PROGRESS_FROM", 12)
    ImageFolder(folder, 8, verbose=False)
    assert "12/12" not in capsys.readouterr().out
    ImageFolder(folder, 8)
    assert "12/12" in capsys.readouterr().out


# -- names that are not UTF-8

BYTES = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_folders_and_files_of_any_name_are_read_and_reported(tmp_path, monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    folder = tmp_path / BYTES
    two_classes(folder)
    (folder / "a").rename(folder / BYTES)
    (folder / BYTES / f"{BYTES}.png").write_text("no image")
    copy = f"{BYTES}/{BYTES}.gif"
    (folder / copy).write_bytes((folder / BYTES / "0.png").read_bytes())
    path = tmp_path / f"{BYTES}.csv"
    source = ImageFolder(folder, 8, corrupt="skip", duplicates="drop", manifest=path)
    assert source.class_names == ["b", BYTES]
    assert source.names[-1] == f"{BYTES}/10.png"
    assert set(source.manifest.skipped) == {f"{BYTES}/{BYTES}.png", copy}
    for reason in source.manifest.skipped.values():
        reason.encode("utf-8")
    assert Manifest.load(path) == source.manifest
    screen.seek(0)
    assert "skipped 2" in screen.read()


def test_errors_and_warnings_name_files_of_any_name(tmp_path):
    folder = tmp_path / BYTES
    two_classes(folder)
    (folder / "a").rename(folder / BYTES)
    shown = "caf\ufffd"

    def says(match, **kwargs):
        with pytest.raises(ValueError, match=match) as error:
            ImageFolder(folder, 8, **kwargs)
        str(error.value).encode("utf-8")

    uncached = ImageFolder(folder, 8, cache=False, manifest=tmp_path / f"{BYTES}.csv")
    says(f"classes {shown}. Expected some of b", class_names=["b"])
    says(f"classes b. Expected some of {shown}", class_names=[BYTES])
    (folder / BYTES / "new.png").write_bytes((folder / BYTES / "0.png").read_bytes())
    with pytest.warns(UserWarning, match=f"{shown}/new.png .a copy of {shown}/0.png") as warned:
        ImageFolder(folder, 8)
    with pytest.warns(UserWarning, match=f"left out: {shown}/new.png") as also_warned:
        ImageFolder(folder, 8, manifest=tmp_path / f"{BYTES}.csv")
    for warning in (*warned, *also_warned):
        str(warning.message).encode("utf-8")
    (folder / BYTES / "0.png").write_text("no image")
    says(f"{shown}/0.png .not an image")
    with pytest.raises(ValueError, match=f"{shown}/0.png, instance 6, which cannot be") as error:
        uncached.image(6)
    str(error.value).encode("utf-8")
    (tmp_path / f"{BYTES}.csv").write_text("no manifest")
    says(f"{shown}.csv, which is damaged", manifest=tmp_path / f"{BYTES}.csv")


# -- files that change while they are used


def test_a_file_rewritten_during_uncached_training_is_an_error(folder):
    source = ImageFolder(folder, 8, cache=False)
    batches = source.batches(12, seed=0)
    batches[0]
    write(folder / source.names[4], COLORS[20])
    with pytest.raises(ValueError, match=rf"{source.names[4]}, instance 4, .*content has changed"):
        batches[0]
    with pytest.raises(ValueError, match=r"instance 4, .*content has changed"):
        source.subset([3, 4]).images()


def test_a_change_that_keeps_the_size_is_seen_by_the_time(folder):
    path = folder / "a" / "0.png"
    data = path.read_bytes()
    path.write_bytes(data + b"0")
    source = ImageFolder(folder, 8, cache=False)
    modified = path.stat().st_mtime_ns
    path.write_bytes(data + b"1")
    os.utime(path, ns=(modified, modified + 1))  # where the system's clock is coarse
    with pytest.raises(ValueError, match=r"instance 0, .*content has changed"):
        source.image(0)


def test_files_that_were_touched_or_restored_are_read(folder):
    source = ImageFolder(folder, 8, cache=False)
    before = source.images()
    for name in source.names:
        os.utime(folder / name, (1, 1))
    data = (folder / source.names[0]).read_bytes()
    write(folder / source.names[0], COLORS[20])
    (folder / source.names[0]).write_bytes(data)
    assert np.array_equal(source.images(), before)


def test_unchanged_files_are_not_hashed_again(folder, tmp_path, monkeypatch):
    ImageFolder(folder, 8, manifest=tmp_path / "m.csv")
    for name in ImageFolder(folder, 8).names:
        os.utime(folder / name, (1, 1))  # a copied folder: other times than in the manifest
    source = ImageFolder(folder, 8, cache=False, manifest=tmp_path / "m.csv")
    monkeypatch.setattr("instdisc_core.data.folder.digest", lambda data: pytest.fail("hashed"))
    assert len(source.images()) == 12
