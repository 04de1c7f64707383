"""A page as a folder of files."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import pytest
from image_files import write
from PIL import Image

from instdisc_core.data import ImageArray, ImageFolder
from instdisc_core.page import FILES, Contents, NeighborRow, Thumbnails, page_file, save_page
from instdisc_core.page.contents import MAP_STEPS, json_for_html, map_steps

pytestmark = pytest.mark.framework_independent
HOSTILE = ["</script><script>alert(1)</script>.png", '"onerror=alert(1).png', "a $title & b.png"]


@pytest.fixture
def photos(tmp_path):
    for i in range(4):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", [60 * i] * 3, (40, 30))
    return ImageFolder(tmp_path / "photos", 8, verbose=False)


def contents(names, **more):
    n = len(names)
    neighbors = np.array([[j for j in range(n) if j != i][:2] for i in range(n)])
    return Contents("Title", names, neighbors=neighbors, similarities=neighbors / 10, **more)


def data_of(folder):
    text = (folder / "page" / "data.js").read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"const PAGE = (.*);\n", text)[1])


def test_a_page_holds_everything_and_nothing_from_elsewhere(photos, tmp_path):
    assert save_page(tmp_path / "out", contents(photos.names), photos, photos.folder) == 4
    text = (tmp_path / "out" / "index.html").read_text()
    linked = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', text)
    assert {f"page/{name}" for name in (*FILES, "data.js")} == set(linked)
    for name in linked:
        assert (tmp_path / "out" / name).is_file()
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    assert not re.search(r"\son\w+=|style=|javascript:", text)
    for name in FILES:
        assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|eval\(", page_file(name))


def test_a_file_of_the_user_is_not_replaced(photos, tmp_path):
    (tmp_path / "index.html").write_bytes(b"<h1>My own page \xff</h1>")
    with pytest.raises(ValueError, match="would be replaced: choose another folder"):
        save_page(tmp_path, contents(photos.names), photos)
    assert (tmp_path / "index.html").read_bytes() == b"<h1>My own page \xff</h1>"
    assert not (tmp_path / "page").exists()
    (tmp_path / "index.html").unlink()
    save_page(tmp_path, contents(photos.names), photos)
    assert save_page(tmp_path, contents(photos.names), photos) == 0  # its own page is


def test_only_thumbnails_of_a_page_are_removed(photos, tmp_path):
    save_page(tmp_path, contents(photos.names), photos)
    folder = tmp_path / "page" / "thumbnails"
    (folder / "ab" / "kept").mkdir(parents=True)
    (folder / "ab" / "holiday.webp").write_bytes(b"mine")
    old = folder / "ab" / f"{16 * 'c'}.webp"
    old.write_bytes(b"of a photo that is gone")
    save_page(tmp_path, contents(photos.names), photos)
    assert sorted(path.name for path in (folder / "ab").iterdir()) == ["holiday.webp", "kept"]
    assert not old.exists()


def test_thumbnails_and_links_are_those_of_the_names(photos, tmp_path):
    save_page(tmp_path / "out", contents(photos.names), photos, photos.folder)
    data = data_of(tmp_path / "out")
    assert data["names"] == list(photos.names)
    for i, name in enumerate(data["names"]):
        path = tmp_path / "out" / (data["thumbnails"] + data["keys"][i] + data["suffix"])
        with Image.open(path) as image:
            assert image.size == (40, 30)
            assert abs(int(np.asarray(image).mean()) - 60 * int(name[2])) <= 2
        assert (tmp_path / "out" / unquote(data["originals"]) / name).is_file()
    assert data["neighbors"][2:4] == [0, 2]
    assert data["scores"][2:4] == [0, 200]


def test_only_what_is_new_or_changed_is_made_again(photos, tmp_path):
    out = tmp_path / "out"
    save_page(out, contents(photos.names), photos)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.webp")}
    assert save_page(out, contents(photos.names), photos) == 0
    write(tmp_path / "photos" / "a" / "0.png", [250] * 3)
    shutil.copy(tmp_path / "photos/b/1.png", tmp_path / "photos/b/copy.png")
    changed = ImageFolder(tmp_path / "photos", 8, duplicates="keep", verbose=False)
    assert save_page(out, contents(changed.names), changed) == 1, "a copy shares the thumbnail"
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*.webp")}
    assert len(set(before.items()) & set(after.items())) == 3
    assert len(after) == 4, "that of the old content is gone"
    keys = data_of(out)["keys"]
    assert keys[changed.names.index("b/1.png")] == keys[changed.names.index("b/copy.png")]
    next(iter(after)).write_bytes(b"")
    assert save_page(out, contents(changed.names), changed) == 1, "an empty file is none"


def test_a_thumbnail_is_small_whole_and_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: the rows of the file are columns
    write(tmp_path / "photos" / "turned.jpg", size=(1000, 400), exif=exif)
    write(tmp_path / "photos" / "large.png", size=(900, 300))
    source = ImageFolder(tmp_path / "photos", 8, verbose=False)
    assert [source.thumbnail(i).shape for i in (0, 1)] == [(53, 160, 3), (160, 64, 3)]
    assert source.subset([1]).thumbnail(0, 50).shape == (50, 20, 3)
    assert ImageArray(source.images()).thumbnail(0).shape == (8, 8, 3)
    made = Thumbnails(tmp_path / "made", source.manifest)
    assert made.make_all(source) == 2
    with Image.open(made.path(1)) as image:
        assert image.size == (64, 160)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_ends_no_script_and_no_attribute(tmp_path, name):
    images = ImageArray(np.zeros((2, 4, 4, 3), "uint8"), names=[name, "other"])
    shown = Contents(name, images.names, np.array([0, 1]), [name, "x"])
    save_page(tmp_path / "out", shown, images, tmp_path)
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("<script") == len(FILES)  # the style is a link, and data.js is another
    assert "alert" not in re.sub(r"<(h1|title)>.*?</\1>", "", text)
    assert "<" not in (tmp_path / "out" / "page" / "data.js").read_text()
    assert data_of(tmp_path / "out")["names"][0] == name
    assert data_of(tmp_path / "out")["classes"][0] == name


def test_names_of_any_bytes_link_to_their_files(tmp_path):
    (tmp_path / "photos").mkdir()
    path = os.path.join(os.fsencode(tmp_path / "photos"), b"caf\xe9 #1.png")
    try:
        Image.fromarray(np.zeros((4, 4, 3), "uint8")).save(os.fsdecode(path))
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    source = ImageFolder(tmp_path / "photos", 4, verbose=False)
    save_page(tmp_path / "a" / "out", Contents("t", source.names), source, source.folder)
    data = data_of(tmp_path / "a" / "out")
    assert data["names"] == ["caf\ufffd #1.png"]
    link = unquote_to_bytes(data["originals"] + data["links"]["0"])
    assert os.path.isfile(os.path.join(os.fsencode(tmp_path / "a" / "out"), link))


def test_lists_are_indices_and_thousandths():
    shown = Contents(
        "t",
        ["x"] * 4,
        labels=np.array([0, 2, 2, 0]),
        class_names=["a"],
        rows=[NeighborRow(1, np.array([2, 3]), np.array([0.5, -0.25]))],
        duplicates=[np.array([0, 3])],
        outliers=np.array([2]),
        outlier_similarities=np.array([0.1]),
        clusters=[np.array([1, 2]), np.array([0, 3])],
        positions=np.array([[-1.0, 0], [1, 0], [0, 1], [0, 0]]),
    )
    data = json.loads(shown.script().removeprefix("const PAGE = ").rstrip(";\n"))
    assert data["classes"] == ["a", "1", "2"]
    assert data["rows"] == [[1, [2, 3], [500, -250]]]
    assert (data["duplicates"], data["outliers"], data["outlierScores"]) == ([[0, 3]], [2], [100])
    assert data["clusters"] == [[1, 2], [0, 3]]
    half = round(MAP_STEPS / 2)
    assert data["map"] == [0, 0, MAP_STEPS, 0, half, half, half, 0]
    assert map_steps(np.zeros((2, 2))) == [0, 0, 0, 0]
    assert json.loads(json_for_html("</a>&\u2028")) == "</a>&\u2028"
    assert json_for_html("</a>&\u2028").isascii()


def test_a_page_elsewhere_finds_its_originals(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_page("x/y", contents(photos.names), photos, Path("photos"))
    assert data_of(Path("x/y"))["originals"] == "../../photos/"
