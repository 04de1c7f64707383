"""Manifests: what they hold, that they come back, and that a damaged one is rejected by name."""

import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.data import ImageFolder, Manifest
from instdisc_core.data.names import ENCODING
from instdisc_core.data.packing import RATIO
from instdisc_core.data.reading import digest

pytestmark = pytest.mark.framework_independent

HEADER = "index,name,bytes,modified,blake2b"
X, Y = digest(b"x"), digest(b"y")
RICH = Manifest(
    ("a,b.png", 'q"uote.jpg', "line\r\nbreak.png", "caf\udce9.png", "é.png"),
    (10, 0, 300, 4, 5),
    (1_700_000_000_000_000_000, 0, -5, 4, 5),
    (X, Y, "", X, Y),
    {"broken\n.jpg": 'it "is", broken', "caf\udce8": "a link"},
)


def numbered(n):
    return Manifest(tuple(f"image {i}" for i in range(n)), (0,) * n, (0,) * n, ("",) * n)


# -- what is written can be read

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
file_names = st.lists(st.integers(1, 255), min_size=1).map(lambda b: bytes(b).decode(*ENCODING))
names = st.lists(texts | file_names, unique=True)


@given(names, st.integers(0, 3), st.data())
def test_a_manifest_comes_back_whatever_the_names(tmp_path_factory, names, skipped, data):
    kept = tuple(names[skipped:])
    numbers = st.lists(st.integers(0, 2**62), min_size=len(kept), max_size=len(kept)).map(tuple)
    digests = tuple(digest(name.encode(*ENCODING)) for name in kept)
    reasons = {name: data.draw(texts) for name in names[:skipped]}
    manifest = Manifest(kept, data.draw(numbers), data.draw(numbers), digests, reasons)
    path = tmp_path_factory.mktemp("manifest") / "m.csv"
    manifest.save(path)
    for again in (Manifest.load(path), Manifest.from_array(manifest.to_array())):
        assert again == manifest
        assert again.fingerprint == manifest.fingerprint


def test_line_ends_may_be_those_of_another_system(tmp_path):
    """As git leaves them, where no name holds a line end."""
    manifest = Manifest(("a", "b,"), (1, 2), (3, 4), (X, Y), {"c": "broken"})
    manifest.save(tmp_path / "m.csv")
    text = (tmp_path / "m.csv").read_bytes()
    (tmp_path / "m.csv").write_bytes(text.replace(b"\r\n", b"\n"))
    assert b"\r" in text
    assert Manifest.load(tmp_path / "m.csv") == manifest


def test_names_that_compress_too_well_are_kept_as_they_are():
    manifest = Manifest(("a" * 60_000, "b" * 60_000), (0, 0), (0, 0), ("", ""))
    assert len(zlib.compress(b"a" * 60_000)) * RATIO < 60_000, "what this test is about"
    assert Manifest.from_array(manifest.to_array()) == manifest


def test_an_array_is_packed_once_and_read_only():
    manifest = numbered(3)
    assert manifest.to_array() is manifest.to_array()
    with pytest.raises(ValueError, match="read-only"):
        manifest.to_array()[0] = 1


def test_a_disk_that_is_full_leaves_the_old_manifest(tmp_path, monkeypatch):
    numbered(3).save(tmp_path / "m.csv")
    write_bytes = Path.write_bytes

    def half(path, data):
        write_bytes(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        RICH.save(tmp_path / "m.csv")
    assert Manifest.load(tmp_path / "m.csv") == numbered(3)
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


# -- what is damaged is rejected


def mutations(data):
    """Every byte changed in two ways, left out, or put twice; every cut; something at the end."""
    for i in range(len(data)):
        for flipped in (1, 128):
            yield data[:i] + bytes([data[i] ^ flipped]) + data[i + 1 :]
        yield data[:i] + data[i + 1 :]
        yield data[: i + 1] + data[i:]
        yield data[:i]
    yield data + b"0"
    yield data + data


def outcome(read, *args):
    """What was read, or the message of the error."""
    try:
        return read(*args)
    except ValueError as error:
        return str(error)


def test_no_mutation_of_a_file_is_read_as_something_else(tmp_path):
    RICH.save(tmp_path / "m.csv")
    for data in mutations((tmp_path / "m.csv").read_bytes()):
        (tmp_path / "x.csv").write_bytes(data)
        found = outcome(Manifest.load, tmp_path / "x.csv")
        if found != RICH:
            assert found.startswith(f"Received: {tmp_path}/x.csv, which is damaged"), data
            assert found.endswith("train a new model on what is there now."), data


def test_no_mutation_of_an_array_is_read_as_something_else():
    for data in mutations(RICH.to_array().tobytes()):
        found = outcome(Manifest.from_array, np.frombuffer(data, "uint8"))
        assert found == RICH or found.startswith(
            "Received: the array of a manifest, which is damaged"
        ), data


@pytest.mark.parametrize("end", [-1, -4, 20])
def test_an_array_that_was_cut_is_rejected_even_where_all_text_is_there(end):
    with pytest.raises(ValueError, match=r"the array of a manifest, .*\(it was cut\)"):
        Manifest.from_array(RICH.to_array()[:end])


def test_nothing_may_follow_in_an_array():
    longer = np.append(RICH.to_array(), np.zeros(3, "uint8"))
    with pytest.raises(ValueError, match=r"the array of a manifest, .*\(3 bytes too many\)"):
        Manifest.from_array(longer)


def test_lines_that_are_cut_off_exchanged_or_repeated_are_noticed(tmp_path):
    manifest = numbered(5)
    manifest.save(tmp_path / "m.csv")
    header, *rows, end = (tmp_path / "m.csv").read_bytes().splitlines(keepends=True)
    others = [rows[:count] for count in range(5)]
    others += [[*rows[:1], *rows], [rows[1], rows[0], *rows[2:]], rows[1:]]
    for damaged in others:
        for last in ([], [end]):
            (tmp_path / "x.csv").write_bytes(b"".join([header, *damaged, *last]))
            with pytest.raises(ValueError, match=r"x\.csv, which is damaged"):
                Manifest.load(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"".join([header, *rows]))  # cut before the last line
    with pytest.raises(ValueError, match=r"x\.csv, which is damaged .*cut or changed"):
        Manifest.load(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["0,a,1,1,", "2,b,1,1,"], "cut or changed"),
        (["1,a,1,1,", "0,b,1,1,"], "cut or changed"),
        (["0,a,1,1,", "1,a,1,1,"], "stand for several images: a"),
        (["0,a,1,1,", ",a,,,broken"], "stand for several images: a"),
        (["0,,1,1,"], "1 names or reasons such as ''"),
        (["0,a,1.5,1,"], "invalid literal"),
        (["0,a,1,now,"], "invalid literal"),
        (["0,a,01,1,"], "cut or changed"),
        (["0,a,-1,1,"], "1 sizes such as -1"),
        (["0,a,1,1,abc"], "1 digests such as 'abc'"),
        ([f"0,a,1,1,{X.upper()}"], "1 digests"),
        (["0,a,1,1"], "not enough values"),
        (["0,a,1,1,,"], "too many values"),
        ([",a,7,,broken"], "cut or changed"),
        ([",a,,,broken", ",a,,,broken"], "cut or changed"),
        (["", "0,a,1,1,"], "not enough values"),
        (["0," + "a" * 140_000 + ",1,1,"], "field larger than field limit"),
        (["0," + "a" * 70_000 + ",1,1,"], "1 names or reasons"),
    ],
)
def test_lines_are_checked_even_where_the_digest_fits_them(tmp_path, lines, why):
    text = "".join(f"{line}\r\n" for line in [HEADER, *lines])
    images = sum(not line.startswith(",") for line in lines)
    text += f"end,{images},{len(lines) - images},,{digest(text.encode())}\r\n"
    (tmp_path / "m.csv").write_text(text, newline="")
    with pytest.raises(ValueError, match=rf"m\.csv, which is damaged \(.*{why}"):
        Manifest.load(tmp_path / "m.csv")


def test_a_manifest_without_images_can_be_read_too():
    assert Manifest.from_array(numbered(0).to_array()) == numbered(0)


def test_what_is_no_manifest_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("something,else\n")
    with pytest.raises(ValueError, match=r"x.csv, .*it does not begin with 'index,name"):
        Manifest.load(tmp_path / "x.csv")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "gone.csv"):
        with pytest.raises(ValueError, match=rf"^Received: {path}, which cannot be read \("):
            Manifest.load(path)


def test_a_small_array_does_not_fill_the_memory():
    bomb = np.frombuffer(zlib.compress(bytes(2**26), 9), "uint8")
    assert len(bomb) * RATIO < 2**23
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"more than {RATIO} times its {len(bomb)} bytes"):
            Manifest.from_array(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_an_array_of_other_numbers_is_rejected(dtype):
    with pytest.raises(ValueError, match=f"dtype {dtype} and shape"):
        Manifest.from_array(RICH.to_array().astype(dtype))
    with pytest.raises(ValueError, match=r"shape \(1, "):
        Manifest.from_array(RICH.to_array()[None])


# -- what a manifest holds


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ((("a", "a"), (1, 1), (0, 0), ("", "")), "1 names that stand for several images: a"),
        ((("a",), (1,), (0,), ("",), {"a": "broken"}), "several images: a"),
        ((("",), (1,), (0,), ("",)), "names or reasons such as ''"),
        (((b"a",), (1,), (0,), ("",)), "names or reasons such as b'a'"),
        ((("\ud800",), (1,), (0,), ("",)), r"such as '\\ud800'"),
        ((("\udcc3\udca9",), (1,), (0,), ("",)), "names or reasons"),
        ((("a\0",), (1,), (0,), ("",)), r"such as 'a\\x00'\. Expected texts .* none of them NUL"),
        ((("a",), (1.0,), (0,), ("",)), r"1 sizes such as 1\.0\. Expected integers"),
        ((("a",), (-1,), (0,), ("",)), "1 sizes such as -1"),
        ((("a",), (1,), ("0",), ("",)), "1 times such as '0'"),
        ((("a",), (1,), (0,), ("x",)), "1 digests such as 'x'. Expected 32 hexadecimal digits"),
        ((("a",), (1,), (0,), (None,)), "1 digests such as None"),
        ((("a",), (1, 2), (0,), ("",)), "2 sizes for 1 names"),
        ((("a",), (1,), (0,), ()), "0 digests for 1 names"),
        ((("a",), (1,), (0,), ("",), {"b": ""}), "names or reasons such as ''"),
    ],
)
def test_what_could_not_be_read_again_is_rejected_at_once(columns, why):
    with pytest.raises(ValueError, match=f"^Received: .*{why}"):
        Manifest(*columns)


def test_every_part_counts_in_a_fingerprint():
    base = (("a", "b"), (1, 2), (0, 0), (X, Y))
    others = [
        (("a", "c"), (1, 2), (0, 0), (X, Y)),
        (("a", "b"), (1, 3), (0, 0), (X, Y)),
        (("a", "b"), (1, 2), (0, 0), (X, X)),
        (("a", "b1"), (1, 2), (0, 0), (X, Y)),
    ]
    prints = {Manifest(*columns).fingerprint for columns in [base, *others]}
    assert len(prints) == 5
    assert Manifest(("a1",), (2,), (0,), ("",)).fingerprint != (
        Manifest(("a",), (12,), (0,), ("",)).fingerprint
    )


def test_two_names_of_files_make_no_third_with_their_fingerprint():
    """Only NUL could, which no file's name holds, and it is rejected."""
    pair = Manifest(("a", "b"), (1, 2), (0, 0), (X, Y))
    with pytest.raises(ValueError, match="1 names or reasons"):
        Manifest((f"a\0001\0{X}\nb",), (2,), (0,), (Y,))
    one = Manifest((f"a1{X}\nb",), (2,), (0,), (Y,))
    assert one.fingerprint != pair.fingerprint


def test_a_manifest_can_be_hashed():
    assert len({RICH, Manifest.from_array(RICH.to_array()), numbered(3)}) == 2


def test_missing_images_are_not_also_renumbered():
    manifest = numbered(4)
    assert manifest.differences(manifest.subset(range(1, 4))) == ["1 missing: image 0"]


def test_fingerprints_differ_with_name_content_order_and_length(folder):
    original = ImageFolder(folder, 8).manifest
    rest = (original.sizes, original.modified, original.digests)
    name = Manifest(("other.png", *original.names[1:]), *rest)
    content = Manifest(original.names, original.sizes, original.modified, original.digests[::-1])
    order = original.subset(range(len(original) - 1, -1, -1))
    touched = Manifest(original.names, original.sizes, (0,) * 12, original.digests)
    prints = {m.fingerprint for m in (original, name, content, order, original.subset([0, 1]))}
    assert len(prints) == 5
    assert touched.fingerprint == original.fingerprint, "the time is no part of it"
    assert order.differences(original) == [
        "12 renumbered: b/11.png, b/9.png, b/7.png, b/5.png, b/3.png and 7 more"
    ]
