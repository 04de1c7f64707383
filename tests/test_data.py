"""Image sources: every kind of file, what is wrong with a folder, manifests, and the order."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import ImageArray, ImageDataset, ImageFolder, Manifest, image_source
from instdisc_core.data.decoding import decode

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (40, 3))


def write(path, colour=(200, 100, 50), size=(20, 16), **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, tuple(int(c) for c in colour)).save(path, **kwargs)


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs of one colour each, in two classes."""
    for i in range(12):
        write(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png", COLOURS[i])
    return tmp_path / "photos"


def truncated(path):
    noise = RNG.integers(0, 256, (64, 64, 3)).astype("uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def test_a_folder_of_classes(folder):
    source = ImageFolder(folder, 8)
    assert source.names[:6] == tuple(f"a/{i}.png" for i in (0, 2, 4, 6, 8, 10))
    assert source.class_names == ["a", "b"]
    assert source.labels.tolist() == [0] * 6 + [1] * 6
    images = source.images()
    assert images.shape == (12, 8, 8, 3)
    assert images.dtype == np.uint8
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    assert np.array_equal(images[:, 0, 0], COLOURS[order])


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


# -- kinds of files


def test_only_the_centre_is_kept_and_nothing_is_distorted(tmp_path):
    pixels = np.zeros((10, 30, 3), "uint8")
    pixels[:, 10:20] = 255
    assert np.all(decode(pixels, (5, 5))[:, 1:-1] == 255)
    assert decode(pixels, (5, 5)).min() > 200


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    image = red.convert("RGBA").convert(mode) if mode == "PA" else red.convert(mode)
    pixels = decode(image, (4, 4))
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    if mode in ("P", "CMYK", "YCbCr", "HSV", "RGBA"):
        assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 2


def test_a_cmyk_jpeg_a_palette_gif_and_an_animation(tmp_path):
    Image.new("RGB", (8, 8), (0, 255, 0)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    frames = [Image.new("P", (8, 8), i) for i in (0, 1)]
    for frame in frames:
        frame.putpalette([0, 0, 255, 255, 0, 0])
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    green, blue = ImageFolder(tmp_path, 4).images()
    assert np.abs(green.astype(int) - (0, 255, 0)).max() < 8
    assert np.all(blue == (0, 0, 255)), "the first frame"


def test_a_jpeg_that_is_decoded_small_is_the_photograph_resized(tmp_path):
    """Pillow may decode at an eighth, but not below what is wanted, and not across its EXIF."""
    ramp = np.linspace(0, 255, 640)
    photograph = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :320], 99), axis=-1)
    photograph[::64] = 255
    image, exif = Image.fromarray(photograph.astype("uint8")), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", quality=95)
    image.rotate(90, expand=True).save(tmp_path / "b.jpg", quality=95, exif=exif)
    expected = np.asarray(ImageOps.fit(image, (40, 80), Image.Resampling.BILINEAR), "int")
    for name in ("a.jpg", "b.jpg"):
        found = decode((tmp_path / name).read_bytes(), (80, 40)).astype(int)
        assert np.abs(found - expected).mean() < 4, name


def test_a_user_s_image_stays_as_it_is(tmp_path):
    write(tmp_path / "a.jpg", size=(400, 400))
    image = Image.open(tmp_path / "a.jpg")
    decode(image, (32, 32))
    assert image.size == (400, 400)


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.full((8, 8), 40_000, "uint16")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.all(ImageFolder(tmp_path, 4).image(0) == 40_000 >> 8)


def test_transparency_lies_on_white():
    assert np.all(decode(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), (4, 4)) == 255)
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    assert np.all(decode(palette, (4, 4)) == 255)


def test_an_image_stands_upright_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (8, 4))
    image.paste((255, 255, 255), (0, 0, 4, 4))  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = decode((tmp_path / "turned.png").read_bytes(), None)
    assert pixels.shape == (8, 4, 3)
    assert np.all(pixels[:4] == 255)
    assert np.all(pixels[4:] == 0)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (np.full((4, 4), 2.0), r"from 2 to 2, not in \[0, 1\]"),
        (np.full((4, 4), np.nan), "not in"),
        (np.zeros((4, 4), "int64"), "dtype int64"),
        (np.zeros((4, 4, 2), "uint8"), r"shape \(4, 4, 2\)"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
        (b"no image", "not an image of a kind that Pillow reads"),
    ],
)
def test_what_is_no_image_says_why(image, why):
    with pytest.raises(ValueError, match=why):
        decode(image, (2, 2))


def test_floats_of_the_unit_interval():
    assert np.all(decode(np.full((4, 4, 3), 0.5), (2, 2)) == 128)


# -- what is wrong with a folder


@pytest.mark.parametrize("cache", [True, False])
def test_broken_files_are_named_or_skipped(folder, cache):
    truncated(folder / "a" / "broken.jpg")
    (folder / "b" / "text.png").write_text("no image")
    (folder / "b" / "empty.gif").touch()
    if cache:
        with pytest.raises(ValueError, match="Received: 3 of 15 files") as error:
            ImageFolder(folder, 8, cache=True)
        for name in ("a/broken.jpg", "b/text.png", "b/empty.gif", "truncated"):
            assert name in str(error.value)
    source = ImageFolder(folder, 8, corrupt="skip", cache=cache)
    assert len(source) == 12
    assert set(source.manifest.skipped) == {"a/broken.jpg", "b/text.png", "b/empty.gif"}
    assert np.array_equal(source.images()[0, 0, 0], COLOURS[0])


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


def test_no_folder_at_all(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which is not there"):
        ImageFolder(tmp_path / "nowhere", 8)
    with pytest.raises(ValueError, match="which is no folder"):
        ImageFolder(tmp_path / "file", 8)


def test_only_broken_files(tmp_path):
    truncated(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"all of whose 1 image files are broken: x\.jpg"):
        ImageFolder(tmp_path, 8, corrupt="skip")


def test_a_single_image_can_be_embedded_but_not_trained_on(tmp_path):
    write(tmp_path / "only.jpg")
    source = ImageFolder(tmp_path, 8)
    assert source.ordered()[0][0].shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match=r"one image, 'only.jpg'. Expected at least 2"):
        source.batches(2, seed=0)


def test_copies_are_named_dropped_or_kept(folder):
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "0.png").read_bytes())
    with pytest.warns(UserWarning, match=r"1 of 13 files .* b/copy.png \(a copy of a/0.png\)"):
        assert len(ImageFolder(folder, 8)) == 13
    dropped = ImageFolder(folder, 8, duplicates="drop")
    assert dropped.manifest.skipped == {"b/copy.png": "a copy of a/0.png"}
    assert len(dropped) == len(dropped.images()) == 12
    assert len(ImageFolder(folder, 8, duplicates="keep")) == 13


@pytest.mark.parametrize("name", ["corrupt", "duplicates", "cache"])
def test_choices_are_listed(folder, name):
    with pytest.raises(ValueError, match=f"Received: {name}='perhaps'. Expected one of"):
        ImageFolder(folder, 8, **{name: "perhaps"})


@pytest.mark.parametrize("size", [0, (8, -1), 2.5])
def test_sizes_are_checked(folder, size):
    with pytest.raises((ValueError, TypeError)):
        ImageFolder(folder, size)


# -- manifests


names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, unique=True)


@given(names, st.data())
def test_a_manifest_comes_back_whatever_the_names(tmp_path_factory, names, data):
    n = len(names)
    numbers = st.lists(st.integers(0, 2**62), min_size=n, max_size=n).map(tuple)
    manifest = Manifest(
        tuple(names), data.draw(numbers), data.draw(numbers), ("",) * n, {"a,b": 'x "y"\nz'}
    )
    path = tmp_path_factory.mktemp("manifest") / "m.csv"
    manifest.save(path)
    assert Manifest.load(path) == manifest
    assert Manifest.from_array(manifest.to_array()) == manifest
    assert Manifest.load(path).fingerprint == manifest.fingerprint


def test_every_part_counts_in_a_fingerprint():
    base = (("a", "b"), (1, 2), (0, 0), ("x", "y"))
    others = [
        (("a", "c"), (1, 2), (0, 0), ("x", "y")),
        (("a", "b"), (1, 3), (0, 0), ("x", "y")),
        (("a", "b"), (1, 2), (0, 0), ("x", "z")),
        (("a", "b1"), (1, 2), (0, 0), ("x", "y")),
    ]
    prints = {Manifest(*columns).fingerprint for columns in [base, *others]}
    assert len(prints) == 5
    assert Manifest(("a1",), (2,), (0,), ("",)).fingerprint != (
        Manifest(("a",), (12,), (0,), ("",)).fingerprint
    )


def test_missing_images_are_not_also_renumbered(folder):
    manifest = ImageFolder(folder, 8).manifest
    assert manifest.differences(manifest.subset(range(1, 12))) == ["1 missing: a/0.png"]


def test_skipped_files_are_not_new(folder, tmp_path, recwarn):
    (folder / "b" / "text.png").write_text("no image")
    ImageFolder(folder, 8, corrupt="skip", manifest=tmp_path / "m.csv")
    again = ImageFolder(folder, 8, manifest=tmp_path / "m.csv")
    assert not recwarn.list
    assert again.manifest.skipped.keys() == {"b/text.png"}


def test_fingerprints_differ_with_name_content_and_order(folder):
    original = ImageFolder(folder, 8).manifest
    content = Manifest(original.names, original.sizes, original.modified, original.digests[::-1])
    order = original.subset(range(len(original) - 1, -1, -1))
    touched = Manifest(original.names, original.sizes, (0,) * 12, original.digests)
    prints = {m.fingerprint for m in (original, content, order, original.subset([0, 1]))}
    assert len(prints) == 4
    assert touched.fingerprint == original.fingerprint, "the time is no part of it"
    assert order.differences(original) == [
        "12 renumbered: b/11.png, b/9.png, b/7.png, b/5.png, b/3.png and 7 more"
    ]


@pytest.mark.parametrize("cache", [True, False])
def test_a_folder_that_changed_since_its_manifest(folder, tmp_path, cache):
    path = tmp_path / "photos.csv"
    ImageFolder(folder, 8, manifest=path, cache=cache)
    written = path.read_text()
    again = ImageFolder(folder, 8, manifest=path, cache=cache)
    assert again.manifest == Manifest.load(path)

    write(folder / "a" / "00.png", COLOURS[20])
    with pytest.warns(UserWarning, match="1 files .* left out: a/00.png"):
        kept = ImageFolder(folder, 8, manifest=path, cache=cache)
    assert kept.names == again.names

    write(folder / "a" / "4.png", COLOURS[21])
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
    monkeypatch.setattr("instdisc_core.data.folder.digest", lambda data: pytest.fail("read"))
    assert len(ImageFolder(folder, 8, manifest=path, cache=False)) == 12


def test_what_is_no_manifest_is_named(folder, tmp_path):
    (tmp_path / "x.csv").write_text("something,else\n")
    with pytest.raises(ValueError, match=r"x.csv, which does not begin with 'index,name"):
        ImageFolder(folder, 8, manifest=tmp_path / "x.csv")


# -- arrays and data sets


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
def test_arrays_that_are_none(images, match):
    with pytest.raises(ValueError, match=match):
        ImageArray(images)


class Squares:
    """A data set as PyTorch's and Hugging Face's are: a length, and elements by their index."""

    def __init__(self, wrap, n=5):
        self.wrap, self.n = wrap, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.wrap(Image.new("RGB", (6, 4), tuple(int(c) for c in COLOURS[i])), i)


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
    assert np.array_equal(source.images([4, 2])[:, 0, 0], COLOURS[[4, 2]])
    assert len(source.batches(2, seed=0)) == 3


def test_data_sets_that_cannot():
    with pytest.raises(ValueError, match=r"a generator\. Expected a data set with len"):
        ImageDataset((x for x in ()), 4)
    with pytest.raises(ValueError, match="an empty data set"):
        ImageDataset([], 4)
    with pytest.raises(ValueError, match=r"element 0 .*a dict with \['pixels'\] and without image"):
        ImageDataset([{"pixels": 1}], 4)
    with pytest.raises(ValueError, match="no size"):
        image_source([np.zeros((4, 4, 3), "uint8")])


def test_a_subset_is_numbered_anew(folder):
    source = ImageFolder(folder, 8)
    some = source.subset([5, 1])
    assert some.names == (source.names[5], source.names[1])
    assert np.array_equal(some.images(), source.images([5, 1]))
    uncached = ImageFolder(folder, 8, cache=False).subset([5, 1])
    assert np.array_equal(uncached.images(), some.images())
    assert uncached.manifest.fingerprint == some.manifest.fingerprint
    with pytest.raises(ValueError, match="indices from 0 to 12"):
        source.subset([0, 12])


def test_data_sets_of_equal_length_are_told_apart():
    first, second = (ImageDataset(list(numbered(6) + shift), 2) for shift in (0, 1))
    assert first.manifest.fingerprint != second.manifest.fingerprint
    uncached = ImageDataset(list(numbered(6)), 2, cache=False)
    assert not uncached.manifest.is_complete
    assert first.manifest.is_complete


def test_labels_of_data_sets_and_sizes_of_arrays():
    images = numbered(4, size=8)
    assert image_source(list(images), size=4, labels=list("abab")).class_names == ["a", "b"]
    assert image_source(images, size=4).size == (4, 4)
    with pytest.raises(ValueError, match="labels for a folder"):
        image_source("somewhere", size=4, labels=[1])


def test_nobody_writes_into_a_source(folder):
    for source in (ImageFolder(folder, 8), ImageArray(numbered(4))):
        with pytest.raises(ValueError, match="read-only"):
            source.image(0)[:] = 7
        source.images()[:] = 7
        assert not np.all(source.image(1) == 7)


# -- batches


def numbered(n, size=2):
    """Images that show their index."""
    images = np.zeros((n, size, size, 3), "uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 256, np.arange(n) // 256
    return images


def shown(images):
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 0, 1].astype(int)


@given(st.integers(2, 300), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_shows_every_image_once_and_is_a_function_of_seed_and_epoch(n, size, seed, epoch):
    batches = ImageArray(numbered(n)).batches(size, seed)
    batches.epoch = epoch
    images, indices = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(shown(images), indices)
    assert np.array_equal(np.sort(indices), np.arange(n))
    again = ImageArray(numbered(n)).batches(size, seed)
    again.epoch = epoch
    assert np.array_equal(again[len(again) - 1][1], batches[len(batches) - 1][1])
    if n > 20:
        assert not np.array_equal(batches.order(epoch + 1), indices)
        assert not np.array_equal(ImageArray(numbered(n)).batches(size, seed + 1).order(0), indices)


def test_nothing_is_kept_that_was_decoded_for_another_epoch(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(3, seed=0)
    batches[0]
    assert set(batches._ahead) == {(0, 1), (0, 2)}
    batches.epoch = 1
    batches[0]
    assert set(batches._ahead) == {(1, 1), (1, 2)}
    batches.on_epoch_end()
    assert not batches._ahead


def test_several_threads_may_ask(folder):
    source = ImageFolder(folder, 8, cache=False)
    batches = source.batches(3, seed=0)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(batches.__getitem__, [0, 1, 2, 3] * 5))
    for step, (images, indices) in enumerate(found):
        assert np.array_equal(indices, batches.indices(0, step % 4))
        assert np.array_equal(images, source.images(indices))


def test_a_remainder_can_be_dropped():
    batches = ImageArray(numbered(10)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in batches] == [4, 4]
    small = ImageArray(numbered(3)).batches(4, seed=0, drop_remainder=True)
    assert [len(indices) for _, indices in small] == [3]


def test_images_alone_in_order():
    (first,), (second,) = ImageArray(numbered(5)).ordered(3)
    assert shown(np.concatenate([first, second])).tolist() == [0, 1, 2, 3, 4]


def test_an_index_beyond_the_end():
    with pytest.raises(IndexError, match=r"batch 2\. Expected one of 0 to 1"):
        ImageArray(numbered(5)).ordered(3)[2]


def test_the_next_batches_are_decoded_ahead_and_each_once(folder, monkeypatch):
    source = ImageFolder(folder, 8, cache=False)
    decoded, lock = [], threading.Lock()
    decode_one = type(source)._decode

    def counting(self, index):
        with lock:
            decoded.append(index)
        return decode_one(self, index)

    monkeypatch.setattr(type(source), "_decode", counting)
    batches = source.batches(3, seed=0, prefetch=2)
    batches[0]
    for step in (1, 2):
        batches._ahead[0, step]()  # waits: they were begun
    assert len(decoded) == 9
    for step in (1, 2, 3):
        batches[step]
    assert sorted(decoded) == list(range(12))


def test_batches_on_the_device_are_the_same():
    source = ImageArray(numbered(10))
    here, there = source.batches(4, seed=3), source.batches(4, seed=3, on_device=True)
    for (a, i), (b, j) in zip(here, there, strict=True):
        assert np.array_equal(a, keras.ops.convert_to_numpy(b))
        assert np.array_equal(i, j)


def test_sources_and_batches_can_be_pickled(folder):
    batches = ImageFolder(folder, 8, cache=False).batches(4, seed=0)
    first = batches[0]
    again = pickle.loads(pickle.dumps(batches))
    assert np.array_equal(again[0][0], first[0])


# -- with the model


class Seen(keras.layers.Layer):
    """Pixels that are scaled and kept as features, so that nothing is learned but the order."""

    def call(self, images):
        return keras.ops.reshape(keras.ops.cast(images, "float32") / 255 - 0.5, (-1, 12))


def model_for(n):
    keras.utils.set_random_seed(0)
    model = InstanceDiscrimination(
        Seen(), n, 4, NonParametricSoftmax(0.5), projector=keras.layers.Dense(4), seed=0
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


class Orders(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches, self.epochs = batches, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.epochs.append(self.batches.epoch)


def source_of(n=10, seed=0):
    return ImageArray(np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3)).astype("uint8"))


def test_fit_runs_through_the_epochs_and_a_run_that_goes_on_is_the_same():
    whole, parts = model_for(10), model_for(10)
    batches = source_of().batches(4, seed=0)
    seen = Orders(batches)
    whole.fit(batches, epochs=3, verbose=0, callbacks=[seen])
    assert seen.epochs == [0, 1, 2]
    parts.fit(source_of().batches(4, seed=0), epochs=1, verbose=0)
    parts.fit(source_of().batches(4, seed=0), epochs=3, initial_epoch=1, verbose=0)
    for ours, theirs in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )


def test_a_model_knows_its_images_and_refuses_others(tmp_path):
    model, batches = model_for(10), source_of().batches(4, seed=0)
    model.fit(batches, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Seen": Seen})
    weights = model_for(10)
    weights.build((None, 2, 2, 3))
    weights.load_weights(tmp_path / "model.weights.h5")
    for restored in (loaded, weights):
        assert restored.manifest == batches.manifest
        before = keras.ops.convert_to_numpy(restored.memory_bank.rows)
        other = source_of(seed=1).batches(4, seed=0)
        for run in (restored.fit, restored.evaluate):
            with pytest.raises(ValueError, match="10 changed: image 0, image 1"):
                run(other, verbose=0)
        assert np.array_equal(keras.ops.convert_to_numpy(restored.memory_bank.rows), before)
        restored.fit(source_of().batches(4, seed=0), verbose=0)


def test_evaluating_binds_a_model_to_no_data():
    model = model_for(10)
    model.evaluate(source_of(seed=1).batches(4, seed=0), verbose=0)
    assert model.manifest is None
    model.fit(source_of().batches(4, seed=0), verbose=0)
    assert model.manifest == source_of().manifest


def test_too_many_images_for_the_bank():
    with pytest.raises(ValueError, match=r"with 11 images. Expected 10.*num_instances=11"):
        model_for(10).fit(source_of(11).batches(4, seed=0), verbose=0)


def test_predict_takes_a_source_in_order():
    model, source = model_for(10), source_of()
    model.fit(source.batches(4, seed=0), verbose=0)
    np.testing.assert_allclose(
        model.predict(source.ordered(3), verbose=0),
        model.predict(source.images(), verbose=0),
        atol=1e-6,
    )


def test_predict_refuses_the_order_of_training():
    with pytest.raises(ValueError, match=r"order of training.*source\.ordered\(\)"):
        model_for(10).predict(source_of().batches(4, seed=0))


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_stays_flat_over_an_epoch_of_files(tmp_path):
    """20,000 names, of 200 JPEG files: decoding 25 MB of pixels a hundred batches must not stay."""
    for i in range(200):
        noise = RNG.integers(0, 256, (64, 64, 3)).astype("uint8")
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
