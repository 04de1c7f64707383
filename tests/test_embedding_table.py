"""Owners of rows: what they share, a third one, and who reads and writes."""

import traceback
from pathlib import Path

import keras
import numpy as np
import pytest
from differentiation import numpy
from keras import ops

import instdisc_core
from instdisc_core import NCE, ClassWeights, InstanceDiscrimination, MemoryBank, get_bank_ops
from instdisc_core.embedding_table import EmbeddingTable
from instdisc_core.testing.strategies import unit_rows
from instdisc_core.types import SearchResult

ROWS, DIM = 5, 4
STORED = ("float32", "bfloat16", "float16", "int8")


@keras.saving.register_keras_serializable("tests")
class Queue(EmbeddingTable):
    """First in, first out: an owner that adds nothing but how its rows move."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.next = self.add_weight(
            name="next", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def enqueue(self, features):
        count = features.shape[0]
        positions = (self.next + ops.arange(count, dtype="int32")) % self.num_rows
        self.bank_ops.update_rows(self.rows, positions, features, ops.ones(count, "bool"))
        self.next.assign((self.next + count) % self.num_rows)


@pytest.mark.parametrize("dtype", STORED)
def test_another_owner_writes_searches_and_is_saved(dtype, tmp_path):
    rng = np.random.default_rng(0)
    queue, other = Queue(ROWS, DIM, dtype, seed=0), Queue(ROWS, DIM, dtype, seed=1)
    first, second = unit_rows(rng, 3, DIM), unit_rows(rng, 3, DIM)
    queue.enqueue(ops.convert_to_tensor(first))
    queue.enqueue(ops.convert_to_tensor(second))
    expected = np.stack([second[2], first[1], first[2], second[0], second[1]])
    np.testing.assert_allclose(numpy(queue.lookup(np.arange(ROWS))), expected, atol=0.02)
    found = queue.search(second, k=1)
    assert isinstance(found, SearchResult)
    assert ops.convert_to_numpy(found.indices)[:, 0].tolist() == [3, 4, 0]

    store: dict = {}
    queue.save_own_variables(store)
    other.load_own_variables(store)
    for ours, theirs in zip(queue.variables, other.variables, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(queue))
    assert again.get_config() == queue.get_config()


def test_rows_need_not_be_of_length_1():
    class Weights(EmbeddingTable):
        unit_rows = False

    weights = Weights(ROWS, DIM)
    weights.load_own_variables({"0": np.full((ROWS, DIM), 7.0, "float32")})
    np.testing.assert_array_equal(numpy(weights.rows), 7)
    with pytest.raises(ValueError, match="5 rows of weights are not finite"):
        weights.load_own_variables({"0": np.full((ROWS, DIM), np.nan, "float32")})
    np.testing.assert_array_equal(numpy(weights.rows), 7)


@pytest.mark.parametrize("make", [lambda: EmbeddingTable(0, 3), lambda: EmbeddingTable(3, 2.0)])
def test_sizes_are_counts(make):
    with pytest.raises(ValueError, match=r"Received: .*Expected an integer >= 1"):
        make()


class Counting(type(get_bank_ops())):
    """The active backend; it knows while it runs, and what it was called for."""

    def __init__(self):
        super().__init__()
        self.running, self.calls = 0, set()


def _counted(name):
    def call(self, *args, **kwargs):
        self.calls.add(name)
        self.running += 1
        try:
            return getattr(super(Counting, self), name)(*args, **kwargs)
        finally:
            self.running -= 1

    return call


PRIMITIVES = {"rows", "scores", "combine", "attend", "update_rows", "top_k"}
for _name in PRIMITIVES | {"dump", "load"}:
    setattr(Counting, _name, _counted(_name))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_nothing_else_reads_or_writes_the_rows(dtype, tmp_path, monkeypatch):
    """In a training run, a search and a save. Keras's trainer may pass whole variables around."""
    package = str(Path(instdisc_core.__file__).parent)
    counting, accesses = Counting(), []

    def watched(self, value):
        if id(self) in bank and not counting.running:
            stack = traceback.extract_stack()[:-2]  # this function, and what called it here
            ours = [i for i, f in enumerate(stack) if "/keras/" not in f.filename][-1]
            whole = any(f.filename.endswith("trainer.py") for f in stack[ours:])
            if stack[ours].filename.startswith(package) and not whole:
                accesses.append(f"{stack[ours].filename}:{stack[ours].lineno}")
        return value

    value, assign = keras.Variable.value, keras.Variable.assign
    seen = property(lambda self: watched(self, value.fget(self)))
    bank: set = set()
    encoder = keras.Sequential([keras.layers.Dense(DIM)])
    objective = NCE(3, 0.5, partition="exact", proximal_weight=1.0)
    model = InstanceDiscrimination(
        encoder, 8, DIM, objective, bank_dtype=dtype, seed=0, backend=counting
    )
    model.compile(optimizer="sgd")
    model.build((None, 3))
    bank |= {id(variable) for variable in model.memory_bank.variables[:-2]}
    assert len(bank) == (2 if dtype == "int8" else 1)
    monkeypatch.setattr(keras.Variable, "value", seen)
    monkeypatch.setattr(
        keras.Variable, "assign", lambda self, new: assign(self, watched(self, new))
    )
    images = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
    model.fit(images, np.arange(8), batch_size=4, verbose=0)
    model.memory_bank.search(model.predict(images, verbose=0), 2)
    model.save_weights(tmp_path / "saved.weights.h5")
    monkeypatch.undo()
    assert not accesses
    assert counting.calls >= PRIMITIVES | {"dump"}

    monkeypatch.setattr(keras.Variable, "value", seen)
    MemoryBank.shape.fget(model.memory_bank)  # reads no row
    assert not accesses
    _read(model.memory_bank, package)
    assert len(accesses) == 1, "a read past the primitives went unseen"


def test_class_weights_are_read_and_written_by_the_primitives(tmp_path, monkeypatch):
    """With the rows of the optimizer, and the steps after which rows were written."""
    counting = Counting()
    weights = ClassWeights(ROWS, DIM, longest_wait=2, seed=0, backend=counting)
    rows = {id(v) for v in (weights.rows, weights.momentum_rows, weights.written_after)}
    accesses, value = [], keras.Variable.value

    def seen(variable):
        if id(variable) in rows and not counting.running:
            accesses.append(variable.name)
        return value.fget(variable)

    monkeypatch.setattr(keras.Variable, "value", property(seen))
    features = unit_rows(np.random.default_rng(0), 2, DIM)
    weights.update([0, 3], features, 0.1)
    weights.lookup([1]), weights.search(features, 2)
    indices, tensor = ops.arange(2), ops.convert_to_tensor(features)
    weights.scores(tensor, indices), weights.combine(tensor[:, :2], indices)
    weights.attend(tensor, 1.0)
    assert not accesses
    assert counting.calls == PRIMITIVES
    weights.rows.value  # noqa: B018
    assert accesses == ["rows"]


def _read(bank, package):
    """A line that claims to be of the package, and takes a row by itself."""
    variable = bank.rows if isinstance(bank.rows, keras.Variable) else bank.rows.values
    exec(compile("variable.value[0]", f"{package}/somewhere.py", "exec"), {"variable": variable})
