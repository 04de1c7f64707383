"""Banks outside the device: the same rows, the same training, the same files."""

import shutil

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import DIM, SIZE, small_model

from instdisc_core import NCE, Checkpoints, InstanceDiscrimination, MemoryBank, host_storage
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import retrieve, weighted_knn
from instdisc_core.host_rows import HostRows, RowFile, pieces
from instdisc_core.streamed_bank_ops import StreamedBankOps
from instdisc_core.testing.strategies import unit_rows

EVERY = np.arange(SIZE, dtype="int32")
IMAGES = np.random.default_rng(0).standard_normal((SIZE, 6)).astype("float32")


def everything(bank):
    return numpy(bank.lookup(EVERY))


@pytest.fixture(params=["host", "file"])
def storage(request, tmp_path):
    return "host" if request.param == "host" else tmp_path / "bank.rows"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_it_starts_moves_and_finds_as_on_the_device(dtype, storage):
    device = MemoryBank(SIZE, DIM, dtype=dtype, seed=0)
    host = MemoryBank(SIZE, DIM, dtype=dtype, seed=0, storage=storage)
    np.testing.assert_array_equal(everything(host), everything(device))
    features = unit_rows(np.random.default_rng(1), 4, DIM)
    features[3] = np.nan
    for bank in (device, host):
        bank.update([7, 2, 7, 1], features)
    np.testing.assert_array_equal(everything(host), everything(device))
    assert int(numpy(host.rejected_embeddings)) == 1
    found, expected = (bank.search(features[:3], 4) for bank in (host, device))
    np.testing.assert_allclose(numpy(found.scores), numpy(expected.scores), atol=1e-6)
    np.testing.assert_array_equal(numpy(found.indices), numpy(expected.indices))
    assert host.get_config() == device.get_config()
    assert not host.trainable_variables


OBJECTIVES = {
    "exact": ("int8", lambda: "non_parametric_softmax"),
    "nce": ("bfloat16", lambda: NCE(5, 0.2, seed=0)),
    "shared_nce": ("float32", lambda: NCE(5, 0.2, seed=0, shared_negatives=True)),
}


@pytest.mark.parametrize(
    "name", ["exact", pytest.param("nce", marks=pytest.mark.on_one_backend), "shared_nce"]
)
def test_training_is_the_same(name, tmp_path):
    """As each framework runs it in ``fit``: compiled on TensorFlow and JAX, in several blocks."""
    dtype, objective = OBJECTIVES[name]
    losses, models = [], []
    for storage in (None, tmp_path / "bank.rows"):
        keras.utils.set_random_seed(0)
        model = small_model(objective=objective(), bank_dtype=dtype, bank_storage=storage)
        if storage:
            ops = model.memory_bank.bank_ops
            ops.block_rows = ops.attend_rows = ops.search_rows = 3
        losses += model.fit(IMAGES, EVERY, batch_size=4, epochs=3, verbose=0).history["loss"]
        losses.append(np.ravel(model.evaluate(IMAGES, EVERY, verbose=0))[0])
        models.append(model)
    np.testing.assert_allclose(losses[:4], losses[4:], rtol=1e-5)
    device, host = models
    # A last bit of a score may round a stored row to its neighbor.
    tolerance = {"int8": 1e-2, "bfloat16": 1e-2, "float32": 1e-5}[dtype]
    found, expected = everything(host.memory_bank), everything(device.memory_bank)
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert RowFile(tmp_path / "bank.rows", SIZE, DIM, dtype).check(), "fit did not flush"


@pytest.mark.on_one_backend
def test_in_one_block_training_has_the_same_bits(storage):
    rows = []
    for place in (None, storage):
        keras.utils.set_random_seed(0)
        model = small_model(bank_dtype="int8", bank_storage=place)
        model.fit(IMAGES, EVERY, batch_size=4, epochs=3, verbose=0)
        rows.append(everything(model.memory_bank))
    np.testing.assert_array_equal(*rows)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch compiles no step")
def test_operations_that_cannot_call_the_host_raise_in_a_compiled_step():
    model = small_model(backend="keras", bank_storage="host")
    with pytest.raises(RuntimeError, match=r"Expected a step that runs eagerly"):
        model.fit(IMAGES, EVERY, batch_size=5, verbose=0)


@pytest.mark.parametrize("size", [1, 2**27], ids=["pieces", "whole"])
def test_weights_are_saved_and_loaded_between_device_and_file(size, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", size)
    path = tmp_path / "bank.rows"
    for i, (start, end) in enumerate(((path, None), (None, path), (path, path))):
        first, second = (
            MemoryBank(SIZE, DIM, dtype="int8", seed=seed, storage=where)
            for seed, where in ((0, start), (1, end))
        )
        first.update([i], unit_rows(np.random.default_rng(i), 1, DIM))
        store: dict = {}
        first.save_own_variables(store)
        rows = everything(first)
        second.update([3], unit_rows(np.random.default_rng(9), 1, DIM))
        second.load_own_variables(store)
        np.testing.assert_array_equal(everything(second), rows)
        for bank in (first, second):
            if isinstance(bank.rows, HostRows):
                bank.rows.flush()


def test_rows_that_are_damaged_change_nothing(tmp_path):
    bank = MemoryBank(SIZE, DIM, seed=0, storage=tmp_path / "bank.rows")
    before = everything(bank)
    store: dict = {}
    bank.save_own_variables(store)
    store["0"] = 2 * store["0"]
    with pytest.raises(ValueError, match=r"10 of 10 rows of memory_bank are not of length 1"):
        bank.load_own_variables(store)
    np.testing.assert_array_equal(everything(bank), before)


@pytest.mark.on_one_backend
def test_whole_models_and_weights(tmp_path, monkeypatch):
    """A ``.keras`` file does not say where the rows were; a large bank saves weights alone."""
    model = small_model(bank_dtype="int8", bank_storage=tmp_path / "bank.rows")
    model.fit(IMAGES, EVERY, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, InstanceDiscrimination)
    assert not isinstance(loaded.memory_bank.rows, HostRows)
    np.testing.assert_array_equal(everything(loaded.memory_bank), everything(model.memory_bank))
    monkeypatch.setattr(host_storage, "IN_MEMORY", 10)
    with pytest.raises(ValueError, match=r"Use save_weights"):
        model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    other = small_model(bank_dtype="int8", bank_storage=tmp_path / "other.rows")
    other.build((None, 6))
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(everything(other.memory_bank), everything(model.memory_bank))


@pytest.mark.on_one_backend
def test_a_killed_training_continues_from_its_checkpoint(tmp_path):
    """The same command, started again: its file is unfinished, and the checkpoint replaces it."""

    def built(name):
        keras.utils.set_random_seed(0)
        model = small_model(bank_dtype="int8", bank_storage=tmp_path / name)
        model.build((None, 6))
        return model

    def trained(model, epochs, folder):
        callbacks = [Checkpoints(tmp_path / folder)]
        model.fit(IMAGES, EVERY, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)
        return model.memory_bank

    whole = trained(built("whole.rows"), 3, "whole")
    started = trained(built("started.rows"), 2, "run")
    started.update([3, 4], unit_rows(np.random.default_rng(0), 2, DIM))  # of the third epoch
    shutil.copy(tmp_path / "started.rows", tmp_path / "killed.rows")
    with pytest.warns(UserWarning, match=r"killed\.rows' was not closed"):
        again = built("killed.rows")
    continued = trained(again, 3, "run")
    found, expected = everything(continued), everything(whole)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.on_one_backend
def test_rows_of_weights_that_do_not_fit_the_model_cannot_be_read(tmp_path, monkeypatch):
    model = small_model(bank_storage=tmp_path / "bank.rows")
    model.build((None, 6))
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)

    def fails(store):
        raise ValueError("it does not fit")

    monkeypatch.setattr(model.projector, "load_own_variables", fails)
    before = everything(model.memory_bank)
    with pytest.raises(ValueError, match="does not fit"):
        model.load_weights(path)
    assert model.memory_bank.rows.loads == 1, "Keras loads the projector before the bank"
    with pytest.raises(ValueError, match=r"Load the weights"):
        everything(model.memory_bank)
    monkeypatch.undo()
    model.load_weights(path)
    np.testing.assert_array_equal(everything(model.memory_bank), before)


def test_its_rows_are_a_gallery_and_neighbors(tmp_path):
    source = ImageArray(np.zeros((SIZE, 2, 2, 3), "uint8"))
    device, host = (
        MemoryBank(SIZE, DIM, seed=0, storage=storage) for storage in (None, tmp_path / "bank.rows")
    )
    features = unit_rows(np.random.default_rng(1), SIZE, DIM)
    for use in (
        lambda bank: weighted_knn(features, bank.rows, EVERY % 3, k=3),
        lambda bank: retrieve(features, source, bank, source, k=2).neighbors,
    ):
        np.testing.assert_array_equal(use(host), use(device))


@pytest.mark.on_one_backend
def test_what_is_no_storage():
    with pytest.raises(ValueError, match="storage=''"):
        MemoryBank(SIZE, DIM, storage="")


def test_other_banks_go_to_the_framework(bank):
    """So that one BankOps serves a bank outside the device and one on it."""
    streamed = StreamedBankOps(bank.bank_ops)
    f = keras.ops.convert_to_tensor(unit_rows(np.random.default_rng(0), 2, DIM))
    for found, expected in zip(
        streamed.attend(f, bank.rows, 0.1), bank.bank_ops.attend(f, bank.rows, 0.1), strict=True
    ):
        np.testing.assert_array_equal(numpy(found), numpy(expected))
