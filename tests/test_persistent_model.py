"""Files of weights and models: whole, verified, and with the manifest of their rows."""

import errno

import keras
import numpy as np
import pytest
from damage import flip
from differentiation import numpy
from models import small_model
from trainings import IMAGES, N, as_arrays, as_source, build, state

from instdisc_core.checkpoints import seal
from instdisc_core.data import ImageArray

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_weights_without_a_digest_and_with_another_change_nothing(tmp_path):
    model, other = build(), build()
    as_source(model)
    other.build((None, 2, 2, 3))
    before = [numpy(v) for v in other.variables]
    path = tmp_path / "m.weights.h5"
    keras.saving.save_weights(model, path)
    for match, damage in (("does not end with a digest", lambda: seal(path)), ("not those", None)):
        if damage is None:
            flip(path)
        with pytest.raises(ValueError, match=match):
            other.load_weights(path)
        if damage is not None:
            damage()
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.mark.parametrize(
    "skip_mismatch", [False, pytest.param(True, marks=pytest.mark.on_one_backend)]
)
def test_rows_of_others_bring_their_manifest_or_none(tmp_path, skip_mismatch):
    """A bank never ends with rows of one data set and the manifest of another."""
    known, bare = build(), build()
    as_source(known)
    as_arrays(bare)
    bare.save_weights(tmp_path / "bare.weights.h5")
    known.load_weights(tmp_path / "bare.weights.h5", skip_mismatch=skip_mismatch)
    np.testing.assert_array_equal(numpy(known.memory_bank.rows), numpy(bare.memory_bank.rows))
    assert known.manifest is None


@pytest.mark.on_one_backend
def test_weights_of_a_bank_of_another_size_leave_everything(tmp_path):
    model, larger = build(), build(n=N + 1)
    as_source(model)
    larger.build((None, 2, 2, 3))
    larger.optimizer.build(larger.trainable_variables)
    larger.manifest = ImageArray(np.zeros((N + 1, 2, 2, 3), "uint8")).manifest
    larger.save_weights(tmp_path / "larger.weights.h5")
    manifest, before, rows = model.manifest, state(model), numpy(model.memory_bank.rows)
    with pytest.raises(ValueError, match=r"memory_bank has the shapes .*\(11, 4\)"):
        model.load_weights(tmp_path / "larger.weights.h5")
    for ours, value in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(ours, value)
    with pytest.warns(UserWarning, match="memory_bank has the shapes"):
        model.load_weights(tmp_path / "larger.weights.h5", skip_mismatch=True)
    np.testing.assert_array_equal(numpy(model.memory_bank.rows), rows)
    assert model.manifest == manifest


def test_weights_that_fail_after_the_rows_leave_the_manifest(tmp_path):
    """Keras loads part by part: the bank, and its manifest, before the projector that fails."""
    model, other = (
        small_model(projector=keras.layers.Dense(4, use_bias=bias)) for bias in (False, True)
    )
    for each in (model, other):
        each.build((None, 2, 2, 3))
    model.manifest, other.manifest = (ImageArray(i).manifest for i in (IMAGES, 255 - IMAGES))
    other.save_weights(tmp_path / "other.weights.h5")
    manifest, rows = model.manifest, numpy(model.memory_bank.rows)
    with pytest.raises(ValueError, match="expected 1 variables"):
        model.load_weights(tmp_path / "other.weights.h5")
    assert model.manifest is manifest
    np.testing.assert_array_equal(numpy(model.memory_bank.rows), rows)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda bank: bank.rows.assign(2 * bank.rows), "10 of 10 rows of memory_bank are not of"),
        pytest.param(
            lambda bank: bank.rows.assign(np.full((N, 4), np.nan)),
            "10 of 10 rows of memory_bank",
            marks=pytest.mark.on_one_backend,
        ),
        pytest.param(
            lambda bank: setattr(bank, "manifest", bank.manifest.subset([0, 1])),
            "manifest of 2",
            marks=pytest.mark.on_one_backend,
        ),
    ],
)
def test_rows_that_no_bank_has_are_rejected(tmp_path, spoil, match):
    model, other = build(), build()
    as_source(model)
    other.build((None, 2, 2, 3))
    spoil(model.memory_bank)
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    before = [numpy(v) for v in other.variables]
    with pytest.raises(ValueError, match=match):
        other.load_weights(tmp_path / "m.weights.h5")
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    assert other.manifest is None
    with pytest.raises(ValueError, match=match):
        keras.saving.load_model(tmp_path / "m.keras")


@pytest.mark.on_one_backend
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, name):
    model = build()
    as_source(model)
    write = model.save if name == "model.keras" else model.save_weights
    write(tmp_path / name)
    before = (tmp_path / name).read_bytes()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr("instdisc_core.files.flush", full)
    as_source(model)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_one_file_of_weights(tmp_path):
    model = build()
    model.build((None, 2, 2, 3))
    with pytest.raises(ValueError, match="max_shard_size=1"):
        model.save_weights(tmp_path / "m.weights.json", max_shard_size=1)
