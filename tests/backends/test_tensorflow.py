"""What only TensorFlow can show."""

import gc
from functools import cache

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import NCE, BankOps, InfoNCE, MemoryBank, NonParametricSoftmax
from instdisc_core.testing.strategies import unit_rows

if keras.backend.backend() != "tensorflow":
    pytest.skip("needs the tensorflow backend", allow_module_level=True)

import tensorflow as tf

N, D, BATCH = 500, 16, 8
OBJECTIVES = {
    "exact": lambda: NonParametricSoftmax(0.1, proximal_weight=1.0),
    "nce": lambda: NCE(30, 0.1, proximal_weight=1.0, seed=0),
    "shared nce": lambda: NCE(30, 0.1, shared_negatives=True, seed=0),
    "info_nce": lambda: InfoNCE(30, 0.1, seed=0),
}
EXECUTION = {
    "eager": lambda step: step,
    "graph": tf.function,
    "XLA": lambda step: tf.function(step, jit_compile=True),
}


def training_step(objective, bank):
    def step(features, indices):
        with tf.GradientTape() as tape:
            tape.watch(features)
            losses = objective(features, indices, bank)
        gradient = tape.gradient(losses, features)
        bank.update(indices, features, after=losses)
        return losses, gradient

    return step


@cache
def traced_step(name, execution):
    """A bank, its training step, and the state to start from; traced and compiled once."""
    objective, bank = OBJECTIVES[name](), MemoryBank(N, D, seed=0)
    objective.build(bank.shape)
    start = [(v, v.numpy()) for v in [*bank.variables, *objective.variables]]
    return bank, EXECUTION[execution](training_step(objective, bank)), start


def fresh_step(name, execution):
    """The bank as it starts, and its training step."""
    bank, step, start = traced_step(name, execution)
    for variable, value in start:
        variable.assign(value)
    return bank, step


def batch():
    features = unit_rows(np.random.default_rng(0), BATCH, D)
    return tf.constant(features), tf.range(BATCH)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_eager_graph_and_xla_do_the_same(name):
    results = []
    for execution in EXECUTION:
        bank, step = fresh_step(name, execution)
        step(*batch())
        losses, gradient = step(*batch())
        results.append((losses.numpy(), gradient.numpy(), numpy(bank.rows)))
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_batch_of_unknown_size(make):
    bank = MemoryBank(N, D, seed=0)
    signature = [tf.TensorSpec((None, D), tf.float32), tf.TensorSpec((None,), tf.int32)]
    step = tf.function(training_step(make(), bank), input_signature=signature)
    features, indices = batch()
    for size in (BATCH, 3):
        losses, gradient = step(features[:size], indices[:size])
        assert losses.shape == (size,)
        assert gradient.shape == (size, D)


@pytest.mark.parametrize("make", [OBJECTIVES["nce"], OBJECTIVES["shared nce"]])
def test_a_step_with_sampled_negatives_reads_only_the_rows_it_needs(make):
    """A dense read of a variable that was scattered into copies it whole."""
    bank = MemoryBank(N, D, seed=0)
    step = tf.function(training_step(make(), bank)).get_concrete_function(*batch())
    graphs = [step.graph, *(f.graph for f in step.graph._functions.values() if hasattr(f, "graph"))]
    dense = [
        op.name
        for graph in graphs
        for op in graph.get_operations()
        if op.type == "ReadVariableOp"
        and op.outputs[0].shape == (N, D)
        and op.outputs[0].consumers()
    ]
    assert not dense


@pytest.mark.parametrize("execution", ["graph", "XLA"])
@pytest.mark.parametrize("wrong", [-1, N, 2**31 - 1])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_wrong_index_in_a_compiled_step_shows_and_trains_nothing(name, wrong, execution):
    bank, step = fresh_step(name, execution)
    before = numpy(bank.rows)
    features, indices = batch()
    indices = tf.tensor_scatter_nd_update(indices, [[3]], [wrong])
    losses, gradient = (tensor.numpy() for tensor in step(features, indices))
    assert np.isnan(losses[3])
    assert np.all(np.isfinite(np.delete(losses, 3)))
    assert np.all(gradient[3] == 0)
    assert np.all(np.isfinite(gradient))
    moved = np.flatnonzero(np.any(before != numpy(bank.rows), axis=1))
    np.testing.assert_array_equal(moved, np.delete(np.arange(BATCH), 3))
    assert int(numpy(bank.rejected_indices)) == 1
    assert int(numpy(bank.rejected_embeddings)) == 0


def test_loops_over_the_bank_are_compiled_inside_a_plain_graph():
    bank = MemoryBank(N, D, seed=0)
    step = tf.function(training_step(OBJECTIVES["exact"](), bank)).get_concrete_function(*batch())
    functions = step.graph.as_graph_def().library.function
    assert any(f.attr["_XlaMustCompile"].b for f in functions)


def test_a_search_is_compiled_once_for_a_bank_and_finds_the_same_without_xla(monkeypatch):
    from instdisc_tensorflow import bank_ops

    bank, other = MemoryBank(20_000, D, seed=0), MemoryBank(20_000, D, seed=1)
    features, _ = batch()
    found = bank.search(features, 7), other.search(features, 7)
    for searched in (bank, other):
        searched.search(features, 7)
        table = searched.rows.value
        what = searched.bank_ops, features.shape, table.shape, table.dtype, 7
        assert table.searches(*what).experimental_get_tracing_count() == 1
        assert table.searches.cache_info().currsize == 1
    monkeypatch.setattr(bank_ops, "_has_xla", lambda: False)
    expected = bank.search(features, 7), other.search(features, 7)
    assert not np.array_equal(expected[0].indices, expected[1].indices)
    for compiled, eager in zip(found, expected, strict=True):
        np.testing.assert_array_equal(compiled.indices, eager.indices)
        np.testing.assert_allclose(compiled.scores, eager.scores, atol=1e-6)


def test_compiled_searches_do_not_pile_up():
    from instdisc_tensorflow import bank_ops

    table, tensor = tf.Variable(tf.zeros((3, 2))), tf.zeros((3, 2))
    for held in (table, tensor):
        programs = bank_ops._programs_for(held)
        assert bank_ops._programs_for(held) is programs
        for queries in range(bank_ops.PROGRAMS + 3):
            shape = tf.TensorShape((queries, 2))
            programs(BankOps(), shape, held.shape, held.dtype, 1)
        assert programs.cache_info().currsize == bank_ops.PROGRAMS


def test_a_bank_is_searched_after_another_one_was_deleted():
    features, _ = batch()
    bank = MemoryBank(20_000, D, seed=0)
    expected = numpy(bank.search(features, 7).indices)
    del bank
    gc.collect()
    again = MemoryBank(20_000, D, seed=0)
    np.testing.assert_array_equal(numpy(again.search(features, 7).indices), expected)
