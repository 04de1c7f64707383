"""Files of rows: what their header says, and when they are whole."""

import shutil

import numpy as np
import pytest

from instdisc_core.host_rows import HostRows, Pieces, RowFile, load_pieces, pieces, save_pieces
from instdisc_core.host_storage import random_unit_rows

pytestmark = pytest.mark.framework_independent
ROWS, DIM = 5, 3


def created(path, dtype="int8"):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-127, 127, (ROWS, DIM)).astype(dtype)]
    if dtype == "int8":
        arrays.append(rng.random((ROWS, 1)).astype("float32"))
    blocks = [[a[:2] for a in arrays], [a[2:] for a in arrays]]
    return HostRows.mapped(path, (ROWS, DIM), dtype, lambda: blocks), arrays


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_a_file_holds_the_rows_of_its_blocks_and_what_is_written(dtype, tmp_path):
    rows, expected = created(tmp_path / "bank.rows", dtype)
    assert (rows.shape, rows.dtype) == ((ROWS, DIM), dtype)
    new = [array[:2][::-1].copy() for array in expected]
    rows.write(np.array([4, 0]), np.array([True, False]), *new)
    rows.flush()
    for array, part in zip(expected, new, strict=True):
        array[4] = part[0]
    again, _ = created(tmp_path / "bank.rows", dtype)
    for found, whole in zip(again.block(0, ROWS), expected, strict=True):
        np.testing.assert_array_equal(found, whole)
    chosen = again.read(np.array([[1, 4, 1]]))
    assert chosen[0].shape == (1, 3, DIM)
    np.testing.assert_array_equal(chosen[0][0], expected[0][[1, 4, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rows": 6}, r"with num_rows=5\. Expected num_rows=6\."),
        ({"embedding_dim": 4, "dtype": "float32"}, "embedding_dim=3, dtype=int8.*dtype=float32"),
    ],
)
def test_a_file_of_other_rows(change, message, tmp_path):
    created(tmp_path / "bank.rows")
    about = {"num_rows": ROWS, "embedding_dim": DIM, "dtype": "int8", **change}
    with pytest.raises(ValueError, match=message):
        RowFile(tmp_path / "bank.rows", **about).check()


def test_files_that_are_none(tmp_path):
    path = tmp_path / "bank.rows"
    created(path)
    whole = path.read_bytes()
    file = RowFile(path, ROWS, DIM, "int8")
    path.write_bytes(whole.replace(b'"version": 1', b'"version": 7'))
    with pytest.raises(ValueError, match=r"with version=7\. Expected version=1"):
        file.check()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="The file was cut short"):
        file.check()
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="does not begin as a file of rows"):
        file.check()


def test_a_file_that_was_not_closed_is_read_once_all_rows_are_loaded(tmp_path):
    path, killed = tmp_path / "bank.rows", tmp_path / "killed.rows"
    rows, arrays = created(path)
    one = np.array([1]), np.array([True]), *(array[:1] for array in arrays)
    rows.write(*one)
    shutil.copy(path, killed)  # as a process that is killed now leaves it
    with pytest.warns(UserWarning, match=r"killed\.rows' was not closed"):
        found, _ = created(killed)
    for use in (lambda: found.read(np.array([0])), lambda: found.block(0, 1)):
        with pytest.raises(ValueError, match=r"Load the weights that were saved last"):
            use()
    with pytest.raises(ValueError, match=r"Load the weights"):
        found.write(*one)
    found.flush()
    assert not RowFile(killed, ROWS, DIM, "int8").check(), "flushed what was never whole"
    found.load(arrays)
    np.testing.assert_array_equal(found.read(np.array([3]))[0][0], arrays[0][3])
    assert RowFile(killed, ROWS, DIM, "int8").check()


def test_a_write_that_is_interrupted_leaves_no_whole_file(tmp_path):
    rows, arrays = created(tmp_path / "bank.rows")
    scales = np.ones((2, 1), "float32")  # not as many as rows
    with pytest.raises((ValueError, IndexError)):
        rows.write(np.array([1]), np.array([True]), arrays[0][:1], scales)
    rows.flush()
    assert not RowFile(tmp_path / "bank.rows", ROWS, DIM, "int8").check()
    with pytest.raises(ValueError, match="not loaded to its end"):
        rows.block(0, 1)


def test_two_banks_do_not_write_to_one_file(tmp_path):
    (first, arrays), (second, _) = (created(tmp_path / "bank.rows") for _ in range(2))
    one = np.array([1]), np.array([True]), *(array[:1] for array in arrays)
    first.write(*one)
    with pytest.raises(ValueError, match="to which another process or another bank writes"):
        second.write(*one)
    first.flush()
    second.write(*one)
    second.flush()


def test_a_creation_that_fails_leaves_no_file(tmp_path):
    def blocks():
        yield [np.zeros((2, DIM), "float32")]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        HostRows.mapped(tmp_path / "bank.rows", (ROWS, DIM), "float32", blocks)
    assert not list(tmp_path.iterdir())


def test_random_rows_do_not_depend_on_the_block():
    whole = np.concatenate(list(random_unit_rows(3, (10, 7), 10)))
    for size in (1, 3, 64):
        blocks = list(random_unit_rows(3, (10, 7), size))
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_large_arrays_are_saved_in_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 4 * 4 * 3)
    large, small = np.arange(40, dtype="float32").reshape(10, 4), np.ones((3, 4), "float32")
    store: dict = {"manifest": np.zeros(2)}
    save_pieces(store, "0", large)
    save_pieces(store, "1", small)
    assert sorted(store) == ["0.0", "0.1", "0.2", "0.3", "1", "manifest"]
    np.testing.assert_array_equal(load_pieces(store)["0"], large)
    found = load_pieces(store, whole=False)
    assert isinstance(found["0"], Pieces)
    assert (found["0"].shape, found["0"].dtype) == (large.shape, large.dtype)
    for some in (slice(0, 10), slice(2, 7), slice(9, 99), slice(4, 4)):
        np.testing.assert_array_equal(found["0"][some], large[some])
    np.testing.assert_array_equal(found["1"], small)
