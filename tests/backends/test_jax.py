"""What only JAX can show."""

import re
from functools import cache

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import DIM, SIZE, UNIT

from instdisc_core import NCE, InfoNCE, MemoryBank, NonParametricSoftmax
from instdisc_core.testing.strategies import unit_rows

if keras.backend.backend() != "jax":
    pytest.skip("needs the jax backend", allow_module_level=True)

import jax
import jax.numpy as jnp

N, D, BATCH = 50_000, 32, 16
ON_A_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU's blocks are larger")
OBJECTIVES = {
    "exact": lambda: NonParametricSoftmax(0.1, proximal_weight=1.0),
    "nce": lambda: NCE(300, 0.1, proximal_weight=1.0, seed=0),
    "shared nce": lambda: NCE(300, 0.1, shared_negatives=True, seed=0),
    "info_nce": lambda: InfoNCE(300, 0.1, seed=0),
}


def rows_of(count, seed=0):
    return unit_rows(np.random.default_rng(seed), count, D)


@cache
def compiled_step(name, after=True):
    """A whole training step on the bank and the objective, and what makes its arguments.

    The step takes the state for itself, so every call needs fresh arguments.
    """
    objective, bank = OBJECTIVES[name](), MemoryBank(N, D, seed=0)
    objective.build(bank.shape)
    variables = [*bank.variables, *objective.variables]

    def step(state, features, indices):
        with keras.StatelessScope(zip(variables, state, strict=True)) as scope:

            def mean_loss(f):
                losses = objective(f, indices, bank)
                return losses.mean(), losses

            gradient, losses = jax.grad(mean_loss, has_aux=True)(features)
            bank.update(indices, features, after=losses if after else None)
        return [scope.get_current_value(v) for v in variables], losses, gradient

    def arguments():
        state = [jnp.array(v.value) for v in variables]
        return state, jnp.asarray(rows_of(BATCH)), jnp.arange(BATCH, dtype="int32")

    return jax.jit(step, donate_argnums=0).lower(*arguments()).compile(), arguments


def copies_of_the_bank(compiled):
    return len(re.findall(rf"= f32\[{N},{D}\]\S* copy\(", compiled.as_text()))


@ON_A_CPU
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_compiled_step_copies_no_bank(name):
    compiled, _ = compiled_step(name)
    assert copies_of_the_bank(compiled) == 0
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < N * D * 4, "a bank's worth of temporary memory"


@ON_A_CPU
def test_without_the_order_it_would():
    """Or the test above, and the ``after`` that it holds, would be of no use."""
    compiled, _ = compiled_step("exact", after=False)
    assert copies_of_the_bank(compiled) > 0


@ON_A_CPU
def test_attention_holds_no_scores_over_the_bank():
    bank, features = jnp.asarray(rows_of(N)), jnp.asarray(rows_of(64))
    operations = MemoryBank(4, D).bank_ops
    compiled = jax.jit(lambda f, b: operations.attend(f, b, 0.1)).lower(features, bank).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * N * 4 / 2


def test_an_eager_update_writes_in_place():
    bank = MemoryBank(N, D, seed=0)
    bank.update(np.arange(2), rows_of(2))
    address = bank.rows.value.unsafe_buffer_pointer()
    bank.update(np.arange(2), rows_of(2, seed=1))
    assert bank.rows.value.unsafe_buffer_pointer() == address


def test_a_stateless_update_leaves_the_caller_s_array_alone():
    bank = MemoryBank(N, D, seed=0)
    given = jnp.array(bank.rows.value)
    with keras.StatelessScope([(bank.rows, given)]) as scope:
        bank.update(np.arange(2), rows_of(2))
    np.testing.assert_array_equal(given, bank.rows.value)
    assert not np.array_equal(scope.get_current_value(bank.rows), given)


@pytest.mark.parametrize("wrong", [-1, N, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_wrong_index_in_a_compiled_step_shows_and_trains_nothing(name, wrong):
    compiled, arguments = compiled_step(name)
    state, features, indices = arguments()
    before = np.array(state[0])
    state, losses, gradient = compiled(state, features, indices.at[3].set(wrong))
    assert np.isnan(losses[3])
    assert np.all(np.isfinite(np.delete(losses, 3)))
    assert np.all(gradient[3] == 0)
    assert np.all(np.isfinite(gradient))
    moved = np.flatnonzero(np.any(before != state[0], axis=1))
    np.testing.assert_array_equal(moved, np.delete(np.arange(BATCH), 3))
    rejected_embeddings, rejected_indices = int(state[1]), int(state[2])
    assert (rejected_embeddings, rejected_indices) == (0, 1)


@pytest.mark.parametrize("objective", [NonParametricSoftmax(), NCE(4)])
def test_a_step_that_would_lose_its_updates_raises_at_once(objective):
    bank = MemoryBank(SIZE, DIM, seed=0)
    indices = np.arange(3, dtype="int32")

    @jax.jit
    def step(features):
        losses = objective(features, indices, bank)
        bank.update(indices, features, after=losses)
        return losses

    before = [numpy(v) for v in bank.variables]
    with pytest.raises(RuntimeError, match=r"keras\.StatelessScope"):
        step(UNIT)
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)  # it can be read
    bank.update(indices, UNIT)
    exact = jax.jit(lambda f: NonParametricSoftmax()(f, indices, bank))(UNIT)
    assert np.all(np.isfinite(exact)), "what moves nothing may be compiled"
