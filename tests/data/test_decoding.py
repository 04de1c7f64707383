"""Decoding of files, Pillow images and arrays: all kinds, and what is rejected."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from image_files import encoded, write
from PIL import EpsImagePlugin, Image, ImageOps

from instdisc_core.data import ImageDataset, ImageFolder, fast_images
from instdisc_core.data.decoding import FORMATS, SUFFIXES, decode

pytestmark = pytest.mark.framework_independent


@pytest.fixture(autouse=True, params=["Pillow", "fast packages"])
def packages(request, monkeypatch):
    """Every test twice: as without the extra "fast-images", and with it."""
    if request.param != "Pillow":
        for name in fast_images.PACKAGES:
            pytest.importorskip(name, reason="an optional extra")
    monkeypatch.setattr(fast_images, "available", lambda: request.param != "Pillow")
    return request.param


def test_only_the_center_is_kept_and_nothing_is_distorted(tmp_path):
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


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "I", "I;16", "YCbCr", "HSV", "LAB"])
def test_gray_stays_the_same_gray_in_every_mode(mode):
    level = 255 if mode == "1" else 150
    gray = Image.new("L", (8, 8), level)
    if mode in ("I", "I;16"):
        image = Image.fromarray(np.full((8, 8), 257 * level, "int32" if mode == "I" else "uint16"))
    elif mode == "LAB":
        image = Image.merge("LAB", (gray, *[Image.new("L", (8, 8), 128)] * 2))
    else:
        image = gray.convert("RGB" if mode in ("YCbCr", "HSV") else "RGBA").convert(mode)
    assert image.mode == mode
    pixels = decode(image, (4, 4)).astype(int)
    assert np.ptp(pixels) <= 1
    if mode == "LAB":  # lightness is no level of gray, but grows with it
        assert 120 < pixels.mean() < 180
    else:
        assert np.abs(pixels - level).max() <= 1


def test_shrinking_averages():
    stripes = np.zeros((12, 12, 3), "uint8")
    stripes[:, ::3] = 255
    for image in (stripes, Image.fromarray(stripes)):
        assert np.abs(decode(image, (4, 4)).astype(int) - 85).max() < 30, "not 0 or 255"


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
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.full((8, 8), 40_000, "uint16")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.all(ImageFolder(tmp_path, 4).image(0) == 40_000 >> 8)


def test_sixteen_bits_of_each_byte_order_become_eight_and_more_are_cut():
    little, big = (
        Image.frombytes(mode, (4, 4), np.full(16, 40_000, dtype).tobytes())
        for mode, dtype in (("I;16", "<u2"), ("I;16B", ">u2"))
    )
    below, above = (Image.new("I", (4, 4), value) for value in (-1000, 10**6))
    for image, expected in ((little, 40_000 >> 8), (big, 40_000 >> 8), (below, 0), (above, 255)):
        assert np.all(decode(image, (2, 2)) == expected)


def test_sixteen_bits_take_little_memory():
    deep = io.BytesIO()
    Image.fromarray(np.zeros((1000, 1000), "uint16")).save(deep, "PNG")
    decode(encoded("PNG"), (8, 8))  # what is imported or loaded once
    tracemalloc.start()
    try:
        decode(deep.getvalue(), (8, 8))
        assert tracemalloc.get_traced_memory()[1] < 10 * 1000 * 1000, "10 bytes for each pixel"
    finally:
        tracemalloc.stop()


def test_transparent_pixels_become_white():
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
        (Image.new("RGB", (0, 4)), "0 x 4 pixels, which is none"),
        (b"no image", "not an image in one of the formats JPEG, PNG"),
    ],
)
def test_what_is_no_image_says_why(image, why):
    with pytest.raises(ValueError, match=why):
        decode(image, (2, 2))


def test_floats_of_the_unit_interval():
    assert np.all(decode(np.full((4, 4, 3), 0.5), (2, 2)) == 128)


# -- what may be opened


@pytest.fixture
def started(monkeypatch):
    """What would have been given to Ghostscript."""
    Image.init()
    calls = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: calls.append(args))
    return calls


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_listed_opens(kind):
    assert decode(encoded(kind), (2, 2)).shape == (2, 2, 3)
    assert decode(Image.open(io.BytesIO(encoded(kind))), (2, 2)).shape == (2, 2, 3)


def test_every_suffix_has_its_format_in_the_list():
    Image.init()
    assert {Image.registered_extensions()[suffix] for suffix in SUFFIXES} == set(FORMATS)


def test_a_jpeg_of_several_images_opens():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))]
    )
    assert Image.open(file).format == "MPO"
    assert decode(file.getvalue(), None).shape == decode(Image.open(file), None).shape == (4, 4, 3)


def test_formats_that_pillow_has_not_loaded_yet_open(monkeypatch):
    Image.init()
    plugin = Image.OPEN["WEBP"]
    monkeypatch.delitem(Image.OPEN, "WEBP")
    monkeypatch.setattr(Image, "init", lambda: Image.OPEN.update(WEBP=plugin))
    assert decode(encoded("WEBP"), (2, 2)).shape == (2, 2, 3)


def test_a_format_that_this_pillow_lacks_stops_no_other(monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF")
    assert decode(encoded("TGA"), (2, 2)).shape == (2, 2, 3)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PCX"])
def test_other_formats_are_not_opened_whatever_their_suffix(tmp_path, monkeypatch, started, kind):
    write(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(encoded(kind))
    opened = []
    for name, (factory, accept) in list(Image.OPEN.items()):
        if name not in FORMATS:

            def recording(*args, name=name, factory=factory):
                opened.append(name)
                return factory(*args)

            monkeypatch.setitem(Image.OPEN, name, (recording, accept))
    source = ImageFolder(tmp_path, 4, corrupt="skip")
    assert source.names == ("good.png",)
    assert "not an image in one of the formats" in source.manifest.skipped["bad.jpg"]
    assert not opened
    assert not started


def test_a_user_s_image_of_another_format_is_rejected_before_it_loads(started):
    image = Image.open(io.BytesIO(encoded("EPS")))
    with pytest.raises(ValueError, match=r"the format EPS, not one of JPEG.*image\.convert"):
        decode(image, (2, 2))
    with pytest.raises(ValueError, match=r"element 0 of the data set.*the format EPS"):
        ImageDataset([{"image": image}], 2)
    assert not started


def test_what_is_neither_file_nor_array_nor_image_is_rejected():
    with pytest.raises(ValueError, match="a str, not the bytes of a file"):
        decode("photo.jpg", (2, 2))


# -- what is too large


def huge_png(width, height):
    """A valid PNG that says that it has so many pixels, in a hundred bytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(10_000, 12_000), (100_000, 100_000)])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_file_of_too_many_pixels_is_no_image(size, action):
    """Pillow warns above its limit and raises above twice that: either is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(ValueError, match=r"DecompressionBomb|10000 x 12000 pixels"):
            decode(huge_png(*size), (2, 2))


def test_the_limit_of_pixels_is_pillow_s_and_can_be_set(monkeypatch):
    image = Image.new("RGB", (4, 4))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    with pytest.raises(ValueError, match=r"4 x 4 pixels, more than PIL.Image.MAX_IMAGE_PIXELS=15"):
        decode(image, (2, 2))
    for limit in (16, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode(image, (2, 2)).shape == (2, 2, 3)


@pytest.mark.parametrize(
    "image", [encoded("PNG"), Image.new("RGB", (4, 4))], ids=["a file", "an image of Pillow"]
)
def test_a_library_that_is_too_old_is_no_broken_file(monkeypatch, image):
    monkeypatch.delattr(Image.Image, "has_transparency_data")  # as before Pillow 10.1
    with pytest.raises(AttributeError, match="has_transparency_data"):
        decode(image, (2, 2))


def test_readers_may_fail_with_exceptions_of_any_type(monkeypatch):
    def fails(image, in_place=False):
        raise TypeError("a tag of a wrong type")

    monkeypatch.setattr(ImageOps, "exif_transpose", fails)
    with pytest.raises(ValueError, match=r"^TypeError: a tag of a wrong type$"):
        decode(encoded("PNG"), (2, 2))


def test_memory_that_does_not_suffice_has_a_name(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise MemoryError

    write(tmp_path / "large.png")
    monkeypatch.setattr(ImageOps, "fit", fails)
    monkeypatch.setattr(Image, "new", fails)
    with pytest.raises(ValueError, match=r"large\.png \(MemoryError"):
        ImageFolder(tmp_path, 4)


# -- the packages of the extra "fast-images"


def photograph(width, height, **kwargs):
    """A JPEG of smooth shapes and some noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), "uint8"))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), "int16")
    noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85, **kwargs)
    return file.getvalue()


def both_ways(image, size, monkeypatch):
    """The pixels by Pillow, and by the packages."""
    for is_fast in (False, True):
        monkeypatch.setattr(fast_images, "available", lambda is_fast=is_fast: is_fast)
        yield decode(image, size).astype(int)


@pytest.mark.parametrize("packages", ["fast packages"], indirect=True)
@pytest.mark.parametrize("size", [(224, 224), (40, 90), (48, 48), (600, 500), None])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_has_the_pixels_that_pillow_gives(size, subsampling, monkeypatch):
    for progressive in (False, True):
        for shape in ((534, 400), (401, 533)):
            file = photograph(*shape, subsampling=subsampling, progressive=progressive)
            slow, fast = both_ways(file, size, monkeypatch)
            assert slow.shape == fast.shape
            error = np.abs(slow - fast)
            assert error.max() <= 1
            assert error.mean() <= 0.3


@pytest.mark.parametrize("packages", ["fast packages"], indirect=True)
@pytest.mark.parametrize("size", [(224, 224), (7, 90), (48, 47), (600, 500), (1, 1)])
@pytest.mark.parametrize("shape", [(400, 534), (57, 101), (3, 1000), (1, 1)])
def test_resizing_is_pillow_s_to_one_level(size, shape, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), "uint8")
    for image in (pixels, Image.fromarray(pixels)):
        slow, fast = both_ways(image, size, monkeypatch)
        assert np.abs(slow - fast).max() <= 1


@pytest.mark.parametrize("packages", ["fast packages"], indirect=True)
def test_a_jpeg_is_neither_decoded_nor_resized_by_pillow(monkeypatch):
    file = photograph(80, 60)
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr(ImageOps, "fit", None)
    assert decode(file, (32, 32)).shape == (32, 32, 3)


def test_a_jpeg_that_is_truncated_or_gray_or_turned(packages):
    file = photograph(80, 60)
    with pytest.raises(ValueError, match="truncated"):
        decode(file[: len(file) // 2], (32, 32))
    gray = io.BytesIO()
    Image.new("L", (20, 10), 77).save(gray, "JPEG")
    assert np.all(decode(gray.getvalue(), (8, 8)) == 77)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = decode(photograph(80, 60, exif=exif), (60, 80)).astype(int)
    assert np.abs(turned[::-1, ::-1] - decode(file, (60, 80))).mean() < 1
