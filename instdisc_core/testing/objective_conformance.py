"""The suite that every objective must pass."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from instdisc_core.memory_bank import MemoryBank
from instdisc_core.objectives import Objective, SampledObjective
from instdisc_core.testing.strategies import Problem, problems, unit_rows
from instdisc_core.testing.training_step import NEGATIVES, TrainingStep, negatives_of

SHAPES = ((1, 2, 3), (4, 30, 8))  # batch, rows, width: some frameworks compile for each
TEMPERATURES = (0.05, 1.0)


class ObjectiveConformance:
    """Subclass it, set ``objective`` and ``reference``, and let pytest collect it.

    Losses and gradients are compared with the float64 reference, in eager execution and in a
    compiled step of the active framework. Saving, configuration, evaluation and bad input are
    checked too.

    Attributes:
        objective: the class, or any function of ``temperature=`` that builds the objective.
        reference: function of ``features``, ``indices``, ``bank`` and ``temperature``, for a
            ``SampledObjective`` also of ``negatives`` ``(batch, m)``, that returns the losses
            ``(batch,)`` and their gradient ``(batch, embedding_dim)``; see ``testing.reference``.
        tolerance: largest error allowed, relative to the largest number, at temperature 1.

    Example:
    ```python
    from instdisc_core.testing import ObjectiveConformance, reference as in_float64

    class TestNonParametricSoftmax(ObjectiveConformance):
        objective = NonParametricSoftmax
        reference = staticmethod(in_float64.softmax)
    ```
    """

    objective: Callable[..., Objective]
    reference: Callable[..., tuple[np.ndarray, np.ndarray]]
    tolerance = 4e-6
    _steps: dict[tuple[Any, ...], TrainingStep]

    def prepare(self, objective: Objective, problem: Problem) -> None:
        """Set the weights of an objective to what the reference assumes, if it has some."""

    @given(problems(SHAPES[1:]), st.sampled_from(TEMPERATURES), st.booleans())
    def test_losses_and_gradient(self, problem: Problem, temperature: float, shared: bool) -> None:
        """In eager execution, with a set of negatives for each image and a shared one."""
        self._compare(problem, temperature, shared, eager=True)

    @given(st.data(), st.sampled_from([*zip(SHAPES, TEMPERATURES, strict=True)]), st.booleans())
    def test_losses_and_gradient_in_a_compiled_step(
        self, data: st.DataObject, case: tuple[Any, float], shared: bool
    ) -> None:
        """As the framework compiles it in ``fit``."""
        problem = data.draw(problems(case[:1]))
        self._compare(problem, case[1], shared, eager=False)

    def test_an_index_without_a_row(self) -> None:
        """If it cannot be checked, it gets the loss NaN and the gradient 0, and does not count."""
        problem = _problem()
        step = self._built_step(problem, 1.0, False, run_eagerly=False, checked=False)
        for index in (-1, len(problem.bank), 2**31 - 1):
            indices = problem.indices.copy()
            indices[1] = index
            found = self._run(step, problem, indices)
            assert np.isnan(found[0][1])
            np.testing.assert_array_equal(found[1][1], 0)
            self._assert_right(found, problem, 1.0, False, [0, 2, 3])

    def test_an_image_that_does_not_count(self) -> None:
        """It gets the loss NaN, and the others are as without it."""
        objective, bank, problem = self._parts()
        f, i, counted = problem.features, problem.indices, np.array([True, True, False, True])
        losses = ops.convert_to_numpy(objective(f, i, bank, training=False, counted=counted))
        np.testing.assert_array_equal(np.isnan(losses), ~counted)
        if not self._is_sampled():  # else the others have other negatives
            few = ops.convert_to_numpy(objective(f[counted], i[counted], bank, training=False))
            np.testing.assert_allclose(losses[counted], few, rtol=1e-5, atol=1e-6)

    def test_training_reads_the_bank_and_does_not_move_it(self) -> None:
        """Only ``bank.update`` moves rows."""
        objective, bank, problem = self._parts()
        objective(problem.features, problem.indices, bank)
        np.testing.assert_array_equal(ops.convert_to_numpy(bank.rows), problem.bank)

    def test_evaluation_repeats_itself_and_moves_nothing(self) -> None:
        """Nothing is drawn from the stream of training."""
        objective, bank, problem = self._parts()
        objective(problem.features, problem.indices, bank)
        before = _values(objective)
        evaluate = [
            objective(problem.features, problem.indices, bank, training=False) for _ in range(2)
        ]
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, evaluate))
        _assert_equal(_values(objective), before)

    def test_configuration(self) -> None:
        """An objective that is rebuilt from its configuration gives the same losses."""
        objective, bank, problem = self._parts()
        config = keras.saving.serialize_keras_object(objective)
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(objective)
        assert keras.saving.serialize_keras_object(again) == config
        if not again.built:
            again.build(bank.shape)
        for variable, value in zip(again.variables, _values(objective), strict=True):
            variable.assign(value)
        batch = problem.features, problem.indices, bank
        evaluate = [ops.convert_to_numpy(o(*batch, training=False)) for o in (objective, again)]
        np.testing.assert_array_equal(*evaluate)

    def test_saving(self) -> None:
        """What training changed is saved: a restored objective gives the same losses."""
        objective, bank, problem = self._parts()
        objective(problem.features, problem.indices, bank)
        other = type(self).objective(temperature=1.0)
        other.build(bank.shape)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "objective.weights.h5"))
            _Holder(objective).save_weights(path)
            _Holder(other).load_weights(path)
        batch = problem.features, problem.indices, bank
        evaluate = [ops.convert_to_numpy(o(*batch, training=False)) for o in (objective, other)]
        np.testing.assert_array_equal(*evaluate)

    def test_bad_input(self) -> None:
        """Errors say what was received and what was expected, and change nothing."""
        objective, bank, problem = self._parts()
        f, i = problem.features, problem.indices
        before = _values(objective)
        rejected: list[dict[str, Any]] = [
            {"indices": i.astype("float32")},
            {"indices": i[:, None]},
            {"indices": i[:-1]},
            {"indices": np.full_like(i, len(problem.bank))},
            {"indices": np.full_like(i, -1)},
            {"features": f[:, :-1]},
            {"features": np.zeros_like(f)},
        ]
        if self._is_sampled():
            shapes = ((len(i), 2, 1), (len(i) - 1, 2), (len(i), 0))
            rejected += [{"negatives": np.zeros(shape, "int32")} for shape in shapes]
            rejected += [{"negatives": np.array([0, n])} for n in (-1, len(problem.bank), 0.5)]
        for arguments in rejected:
            try:
                objective(**{"features": f, "indices": i, "bank": bank, **arguments})
            except ValueError as error:
                message = str(error)
            else:
                raise AssertionError(f"accepted: {arguments}")
            assert message.startswith("Received")
            assert "Expected" in message
        _assert_equal(_values(objective), before)
        np.testing.assert_array_equal(ops.convert_to_numpy(bank.rows), problem.bank)

    def _compare(self, problem: Problem, temperature: float, shared: bool, eager: bool) -> None:
        found = self._run(self._built_step(problem, temperature, shared, eager), problem)
        self._assert_right(found, problem, temperature, shared, [*range(len(found[0]))])

    def _assert_right(
        self,
        found: tuple[np.ndarray, np.ndarray],
        problem: Problem,
        temperature: float,
        shared: bool,
        images: list[int],
    ) -> None:
        """Losses and gradient of these images are the reference's of a batch of them alone."""
        batch = problem.features[images], problem.indices[images], problem.bank
        arguments = {}
        if self._is_sampled():
            negatives = negatives_of(problem, shared)
            every = np.broadcast_to(negatives, (len(problem.indices), NEGATIVES))
            arguments["negatives"] = every[images]
        expected = type(self).reference(*batch, temperature, **arguments)
        for actual, value in zip(found, expected, strict=True):
            atol = self.tolerance * (1 + np.abs(value).max()) * (1 + 1 / temperature)
            np.testing.assert_allclose(actual[images], value, rtol=2e-5, atol=atol)

    def _built_step(
        self,
        problem: Problem,
        temperature: float,
        shared: bool,
        run_eagerly: bool,
        checked: bool = True,
    ) -> TrainingStep:
        """The step for problems of this shape; built and compiled once for each."""
        drawn = shared if self._is_sampled() else None
        key = (problem.features.shape, temperature, drawn, run_eagerly, checked)
        if "_steps" not in type(self).__dict__:
            type(self)._steps = {}
        if key not in self._steps:
            objective = type(self).objective(temperature=temperature)
            self._steps[key] = TrainingStep(objective, problem, drawn, run_eagerly, checked)
        return self._steps[key]

    def _run(
        self, step: TrainingStep, problem: Problem, indices: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Losses and gradient of one step of training."""
        self.prepare(step.objective, problem)
        return step.run(problem, problem.indices if indices is None else indices)

    def _is_sampled(self) -> bool:
        return isinstance(type(self).objective(temperature=1.0), SampledObjective)

    def _parts(self) -> tuple[Objective, MemoryBank, Problem]:
        """The objective, built, with a bank and a batch."""
        problem = _problem()
        bank = MemoryBank(*problem.bank.shape)
        bank.rows.assign(problem.bank)
        objective = type(self).objective(temperature=1.0)
        objective.build(bank.shape)
        return objective, bank, problem


class _Holder(keras.Model):
    """A model that holds an objective, to save its variables."""

    def __init__(self, objective: Objective):
        super().__init__(name="holder")
        self.objective = objective
        self.built = True


def _problem() -> Problem:
    """A batch of four distinct images out of thirty."""
    rng = np.random.default_rng(0)
    indices = rng.permutation(30)[:4].astype("int32")
    return Problem(unit_rows(rng, 30, 8), unit_rows(rng, 4, 8), indices, rng)


def _values(objective: Objective) -> list[np.ndarray]:
    return [ops.convert_to_numpy(variable) for variable in objective.variables]


def _assert_equal(values: list[np.ndarray], others: list[np.ndarray]) -> None:
    for ours, theirs in zip(values, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)
