"""Links, pipes, devices and unreadable files in a folder of images."""

import io
import os
import threading

import pytest
from image_files import COLORS, write

from instdisc_core.data import ImageFolder, image_source
from instdisc_core.data.decoding import decode
from instdisc_core.data.reading import contents

pytestmark = pytest.mark.framework_independent

LINK = "a link to a folder; follow_links=True reads it"


def rejected(folder, why, **kwargs):
    """The folder is rejected with this reason, and read without what is wrong."""
    with pytest.raises(ValueError, match=rf"in which \d files or folders cannot be read: .*{why}"):
        ImageFolder(folder, 8, **kwargs)
    source = ImageFolder(folder, 8, **{**kwargs, "corrupt": "skip"})
    assert len(source) == len(source.images()) == 12
    return source.manifest.skipped


# -- folders


@pytest.fixture
def unreadable(monkeypatch):
    """A function that makes a folder unreadable, even for an administrator."""
    scandir, rejecting = os.scandir, set()

    def fake(path="."):
        if os.path.abspath(path) in rejecting:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fake)
    return lambda path: rejecting.add(os.path.abspath(path))


@pytest.mark.parametrize("cache", [True, False])
def test_a_subfolder_that_nobody_may_read_is_named(folder, unreadable, cache):
    write(folder / "a" / "locked" / "x.png")
    unreadable(folder / "a" / "locked")
    skipped = rejected(folder, r"a/locked \(PermissionError: Permission denied\)", cache=cache)
    assert skipped == {"a/locked": "PermissionError: Permission denied"}


def test_the_folder_itself_may_be_unreadable(folder, unreadable):
    unreadable(folder)
    with pytest.raises(ValueError, match=r"holds no images: \. \(PermissionError: Permission den"):
        ImageFolder(folder, 8, corrupt="skip")


def test_images_of_the_manifest_in_an_unreadable_subfolder_are_missing(
    folder, tmp_path, unreadable
):
    ImageFolder(folder, 8, manifest=tmp_path / "m.csv")
    unreadable(folder / "b")
    with pytest.raises(ValueError, match=r"6 of .*12 files are missing: .*not listed: b \(Permiss"):
        ImageFolder(folder, 8, corrupt="skip", manifest=tmp_path / "m.csv")


def test_a_linked_class_folder_is_named_or_followed(folder, tmp_path):
    for i in range(3):
        write(tmp_path / "elsewhere" / "deep" / f"{i}.png", COLORS[20 + i])
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    assert rejected(folder, r"c \(a link to a folder; follow_links=True") == {"c": LINK}
    for source in (
        ImageFolder(folder, 8, follow_links=True),
        image_source(folder, 8, follow_links=True),
    ):
        assert source.class_names == ["a", "b", "c"]
        assert source.names[12:] == tuple(f"c/deep/{i}.png" for i in range(3))
        assert source.images()[12:, 0, 0].tolist() == COLORS[20:23].tolist()
        assert not source.manifest.skipped


def test_a_folder_of_links_alone_says_so(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "all").symlink_to(folder)
    with pytest.raises(ValueError, match=r"holds no images: all \(a link to a folder; follow"):
        ImageFolder(tmp_path / "links", 8)
    assert len(ImageFolder(tmp_path / "links", 8, follow_links=True)) == 12


def test_links_in_a_circle_end_and_no_folder_is_read_twice(folder, tmp_path, monkeypatch):
    scandir, listed = os.scandir, []

    def counting(path="."):
        listed.append(os.path.realpath(path))
        assert len(listed) < 100
        return scandir(path)

    write(tmp_path / "outside" / "x.png", COLORS[20])
    (folder / "a" / "back").symlink_to(folder)
    (folder / "0 first").symlink_to(folder / "b")
    (tmp_path / "outside" / "in").symlink_to(folder / "a")
    (folder / "c").symlink_to(tmp_path / "outside")
    (folder / "d").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(os, "scandir", counting)
    source = ImageFolder(folder, 8, follow_links=True)
    assert len(listed) == len(set(listed))
    own = [name for name in source.names if name[0] in "ab"]
    assert len(own) == 12, "what the folder holds has its own names"
    assert set(source.names) - set(own) == {"c/x.png"}
    assert not source.manifest.skipped


def test_a_folder_that_is_linked_later_is_left_out_with_a_warning(folder, tmp_path):
    ImageFolder(folder, 8, manifest=tmp_path / "m.csv")
    write(tmp_path / "elsewhere" / "x.png")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="1 files or folders .* left out: c"):
        assert len(ImageFolder(folder, 8, manifest=tmp_path / "m.csv")) == 12
    (tmp_path / "m.csv").unlink()
    ImageFolder(folder, 8, corrupt="skip", manifest=tmp_path / "m.csv")
    assert len(ImageFolder(folder, 8, manifest=tmp_path / "m.csv")) == 12, "known: no warning"


@pytest.mark.parametrize("name", ["albums", "a/x.jpg"])
@pytest.mark.parametrize("follow", [True, False])
def test_links_that_lead_nowhere_are_named(folder, name, follow):
    (folder / name).symlink_to(folder / "gone")
    (folder / ".lock").symlink_to(folder / "gone")  # hidden
    why = "FileNotFoundError: No such file or directory"
    assert rejected(folder, rf"{name} \({why}\)", follow_links=follow) == {name: why}


@pytest.mark.parametrize("target", ["gone", "notes.txt"])
def test_links_that_lead_nowhere_do_not_matter_where_no_image_was(folder, target):
    (folder / "notes.txt").symlink_to(folder / target)
    for follow in (True, False):
        source = ImageFolder(folder, 8, follow_links=follow)
        assert len(source) == 12
        assert not source.manifest.skipped


def test_what_macos_adds_to_an_archive_is_not_listed(folder):
    write(folder / "__MACOSX" / "a" / "0.png")
    source = ImageFolder(folder, 8)
    assert len(source) == 12
    assert source.class_names == ["a", "b"]


def test_a_link_to_itself_is_named(folder):
    (folder / "self").symlink_to(folder / "self")
    assert rejected(folder, r"self \(OSError: ").keys() == {"self"}


def test_links_to_files_are_read(folder, tmp_path):
    write(tmp_path / "elsewhere.png", COLORS[20])
    (folder / "a" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    assert ImageFolder(folder, 8).image(6)[0, 0].tolist() == COLORS[20].tolist()


# -- files


@pytest.fixture
def pipe(tmp_path):
    """A function that makes a pipe. A reader who waits for it is set free, and fails the test."""
    made, waited, end = [], [], threading.Event()

    def release():
        if not end.wait(60):
            waited.extend(made)
            for path in made:
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    def make(path):
        os.mkfifo(path)
        made.append(path)

    thread = threading.Thread(target=release)
    thread.start()
    yield make
    end.set()
    thread.join()
    assert not waited


needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")


@needs_pipes
@pytest.mark.parametrize("cache", [True, False])
def test_a_pipe_is_not_waited_for(folder, pipe, cache):
    pipe(folder / "a" / "x.jpg")
    skipped = rejected(folder, r"a/x.jpg \(a pipe, not a regular file", cache=cache)
    assert skipped == {"a/x.jpg": "a pipe, not a regular file"}


@needs_pipes
def test_a_pipe_for_a_manifest_is_not_waited_for(folder, tmp_path, pipe):
    pipe(tmp_path / "m.csv")
    with pytest.raises(ValueError, match=r"m\.csv, which cannot be read \(a pipe, not a regular"):
        ImageFolder(folder, 8, manifest=tmp_path / "m.csv")


@needs_pipes
def test_a_file_that_becomes_a_pipe_is_not_waited_for(folder, pipe, monkeypatch):
    source = ImageFolder(folder, 8, cache=False)
    (folder / "a" / "0.png").unlink()
    pipe(folder / "a" / "0.png")
    with pytest.raises(ValueError, match=r"instance 0, which cannot be read \(a pipe, not a"):
        source.image(0)
    monkeypatch.setattr("instdisc_core.data.reading.status", lambda path, max_bytes: None)
    with pytest.raises(ValueError, match="a pipe, not a regular file"):
        contents(folder / "a" / "0.png", 100)  # it became one after it was looked at


@pytest.fixture
def opened(monkeypatch):
    """The paths of the files that were opened."""
    open_file, paths = os.open, []

    def recording(path, *args, **kwargs):
        paths.append(str(path))
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", recording)
    return paths


@pytest.mark.parametrize("cache", [True, False])
def test_a_device_is_not_even_opened(folder, opened, cache):
    (folder / "a" / "x.jpg").symlink_to(os.devnull)
    skipped = rejected(folder, r"a/x.jpg \(a device, not a regular file", cache=cache)
    assert skipped == {"a/x.jpg": "a device, not a regular file"}
    assert str(folder / "a" / "0.png") in opened
    assert str(folder / "a" / "x.jpg") not in opened


@pytest.mark.parametrize("cache", [True, False])
def test_a_file_that_is_too_large_is_named_and_not_read(folder, opened, cache):
    with open(folder / "a" / "x.jpg", "wb") as file:
        file.truncate(2**28 + 1)  # takes no place on the disk
    why = "268435457 bytes, more than max_bytes=268435456"
    assert rejected(folder, rf"a/x.jpg \({why}", cache=cache) == {"a/x.jpg": why}
    assert str(folder / "a" / "0.png") in opened
    assert str(folder / "a" / "x.jpg") not in opened


@pytest.mark.parametrize("cache", [True, False])
def test_the_largest_size_is_an_argument(folder, tmp_path, cache):
    largest = max(path.stat().st_size for path in folder.rglob("*.png"))
    with open(folder / "a" / "0.png", "ab") as file:
        file.write(bytes(largest))
    size = (folder / "a" / "0.png").stat().st_size
    options = {"cache": cache, "manifest": tmp_path / "m.csv"}
    source = image_source(folder, 8, max_bytes=size, **options)
    for limit in (size - 1, 10):
        with pytest.raises(ValueError, match=rf"{size} bytes, more than max_bytes={limit}"):
            ImageFolder(folder, 8, max_bytes=limit, **options)
    with open(folder / "a" / "0.png", "ab") as file:
        file.write(b"0")
    if not cache:
        with pytest.raises(ValueError, match=rf"instance 0, .*{size + 1} bytes, more than"):
            source.image(0)


@pytest.mark.parametrize("limit", [0, -1, 2.5, None])
def test_a_largest_size_that_is_none_is_rejected(folder, limit):
    with pytest.raises(ValueError, match="max_bytes"):
        ImageFolder(folder, 8, max_bytes=limit)


def test_a_file_that_grows_while_it_is_read_is_named(folder, monkeypatch):
    fstat = os.fstat

    def growing(descriptor):
        found = fstat(descriptor)
        with open(folder / "a" / "0.png", "ab") as file:
            file.write(b"0")
        return found

    monkeypatch.setattr(os, "fstat", growing)
    with pytest.raises(ValueError, match="its size changes while it is read"):
        contents(folder / "a" / "0.png", 2**20)


def test_of_an_endless_file_no_more_is_read_than_it_should_hold(folder, monkeypatch):
    class Endless(io.FileIO):
        def read(self, size=-1):
            assert 0 <= size <= os.path.getsize(folder / "a" / "0.png") + 1
            return bytes(size)

    monkeypatch.setattr("instdisc_core.data.reading.open", Endless, raising=False)
    with pytest.raises(ValueError, match="its size changes while it is read"):
        contents(folder / "a" / "0.png", 2**20)


def test_memory_that_does_not_suffice_for_a_file_has_a_name(folder, monkeypatch):
    def fails(descriptor, mode):
        os.close(descriptor)
        raise MemoryError

    monkeypatch.setattr("instdisc_core.data.reading.open", fails, raising=False)
    with pytest.raises(ValueError, match=r"a/0.png \(MemoryError: no details\), a/2.png"):
        ImageFolder(folder, 8)


def test_a_reason_is_a_line_even_where_a_file_decides_what_it_says(folder, monkeypatch):
    broken = folder / "a" / "x.png"
    broken.write_text("broken")

    def failing(data, size):
        if data == b"broken":
            raise ValueError("\x1b[2J\n" * 1000)
        return decode(data, size)

    monkeypatch.setattr("instdisc_core.data.scanning.decode", failing)
    reason = rejected(folder, r"a/x.png \(")["a/x.png"]
    assert len(reason) < 1000
    assert reason.isprintable()
