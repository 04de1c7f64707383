"""Loss and gradient of every objective against the float64 reference."""

from functools import partial

import keras
import numpy as np
import pytest
from differentiation import losses_and_gradient, numpy
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from models import SIZE, UNIT, bank_of

from instdisc_core import (
    NCE,
    AliasSampler,
    FeatureDecorrelation,
    InfoNCE,
    MemoryBank,
    NonParametricSoftmax,
    Objective,
    ParametricSoftmax,
    UniformSampler,
    objectives,
    validation,
)
from instdisc_core.negative_sampler import NegativeSampler
from instdisc_core.objectives import ObjectiveSum
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
)
from instdisc_core.testing import ObjectiveConformance, reference
from instdisc_core.testing.strategies import problems


class TestNonParametricSoftmax(ObjectiveConformance):
    objective = NonParametricSoftmax
    reference = staticmethod(reference.softmax)


class TestNCE(ObjectiveConformance):
    objective = partial(NCE, 9, partition=ConstantPartition(20.0), seed=0)
    reference = partial(reference.nce, log_z=np.log(20.0))


class TestInfoNCE(ObjectiveConformance):
    objective = partial(InfoNCE, 9, seed=0)
    reference = staticmethod(reference.info_nce)


class TestParametricSoftmax(ObjectiveConformance):
    """With the bank's rows as weights, it is the exact softmax."""

    objective = partial(ParametricSoftmax, seed=0)
    reference = staticmethod(reference.softmax)

    def prepare(self, objective, problem):
        objective.w.assign(problem.bank)


@pytest.mark.filterwarnings("ignore:Received. a batch of . embeddings:UserWarning")
class TestFeatureDecorrelation(ObjectiveConformance):
    objective = FeatureDecorrelation
    reference = staticmethod(reference.feature_decorrelation)


class TestProximalTerm(ObjectiveConformance):
    objective = partial(NonParametricSoftmax, proximal_weight=30.0)

    @staticmethod
    def reference(features, indices, bank, temperature):
        softmax = reference.softmax(features, indices, bank, temperature)
        term = reference.proximal(features, indices, bank, 30.0)
        return softmax[0] + term[0], softmax[1] + term[1]


@keras.saving.register_keras_serializable("tests")
class OwnRow(Objective):
    """``v_i . f_i / temperature``, differentiated by the framework."""

    def image_losses(self, features, indices, bank, training):
        return ops.sum(features * bank.lookup(indices), axis=1) / self.temperature


@keras.saving.register_keras_serializable("tests")
class FirstRows(NegativeSampler):
    """Rows 0, 1, 2, ... for every image."""

    def draw(self, indices, num_instances, shape, seed):
        return ops.broadcast_to(ops.arange(shape[-1], dtype="int32") % num_instances, shape)


class TestSum(ObjectiveConformance):
    """Of all three kinds."""

    @staticmethod
    def objective(temperature):
        sampled = InfoNCE(9, 1.0, sampler=FirstRows())
        return NonParametricSoftmax(temperature) + 0.5 * (sampled + 3.0 * OwnRow(1.0))

    @staticmethod
    def reference(features, indices, bank, temperature):
        negatives = np.tile(np.arange(9) % len(bank), (len(indices), 1))
        exact = reference.softmax(features, indices, bank, temperature)
        sampled = reference.info_nce(features, indices, bank, 1.0, negatives)
        own = bank[indices].astype("float64")
        return (
            exact[0] + 0.5 * sampled[0] + 1.5 * (features * own).sum(axis=1),
            exact[1] + 0.5 * sampled[1] + 1.5 * own,
        )


class ForgetsTheTemperature(NonParametricSoftmax):
    def losses_and_gradient(self, *args):
        losses, gradient = super().losses_and_gradient(*args)
        return losses, gradient * self.temperature


class DrawsInEvaluation(InfoNCE):
    def losses_and_gradient(self, features, indices, bank, training, negatives=None):
        return super().losses_and_gradient(features, indices, bank, True, negatives)


class MovesTheBank(NonParametricSoftmax):
    def losses_and_gradient(self, features, indices, bank, training):
        result = super().losses_and_gradient(features, indices, bank, training)
        bank.update(indices, features, after=result[0])
        return result


class TakesAnyIndex(NonParametricSoftmax):
    def call(self, features, indices, bank, training=True):
        return self.image_losses(features, indices % bank.num_rows, bank, training)


@keras.saving.register_keras_serializable("tests")
class LosesItsWeight(NonParametricSoftmax):
    def get_config(self):
        return {**super().get_config(), "proximal_weight": 0.0}


BROKEN = (
    (ForgetsTheTemperature, "test_losses_and_gradient"),
    (ForgetsTheTemperature, "test_losses_and_gradient_in_a_compiled_step"),
    (partial(DrawsInEvaluation, 9, seed=0), "test_evaluation_repeats_itself_and_moves_nothing"),
    (MovesTheBank, "test_training_reads_the_bank_and_does_not_move_it"),
    (TakesAnyIndex, "test_an_index_without_a_row"),
    (partial(LosesItsWeight, proximal_weight=2.0), "test_configuration"),
)


@pytest.mark.parametrize(("broken", "test"), BROKEN)
def test_the_suite_catches_a_broken_objective(broken, test):
    sampled = isinstance(broken, partial) and broken.func is DrawsInEvaluation
    right = staticmethod(reference.info_nce if sampled else reference.softmax)
    suite = type("Suite", (ObjectiveConformance,), {"objective": broken, "reference": right})()
    with pytest.raises((AssertionError, ExceptionGroup)):
        getattr(suite, test)()


@pytest.mark.parametrize(("log_z", "shared"), [(-3.0, False), (12.0, True)])
def test_nce_with_noise_that_is_not_uniform(log_z, shared):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 4))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
    noise = rng.dirichlet(np.full(30, 3.0)) + 1e-3
    noise /= noise.sum()
    partition = ConstantPartition(np.exp(log_z))
    objective = NCE(9, 0.2, sampler=AliasSampler(noise), partition=partition)
    indices, features = np.array([3, 8], "int32"), rows[[5, 8]]
    drawn = rng.integers(0, 30, 9 if shared else (2, 9)).astype("int32")
    actual = losses_and_gradient(objective, features, indices, bank_of(rows), negatives=drawn)
    drawn = np.broadcast_to(drawn, (2, 9))
    expected = reference.nce(features, indices, rows, 0.2, drawn, log_z, noise)
    for part, value in zip(actual, expected, strict=True):
        np.testing.assert_allclose(part, value, rtol=2e-5, atol=1e-5 * (1 + np.abs(value).max()))


@given(problems(((1, 40, 8),)), st.sampled_from([0.1, 1.0]), st.sampled_from([1, 6]))
def test_the_mean_of_nce_over_the_noise_is_its_finite_sum(problem, temperature, m):
    """One image n times over, its draws shifted each time, so that every column visits all."""
    n, log_z = len(problem.bank), 3.0
    shifted = (np.arange(n)[:, None] + np.arange(m)) % n
    objective = NCE(m, temperature, partition=ConstantPartition(np.exp(log_z)))
    losses, gradient = losses_and_gradient(
        objective,
        np.repeat(problem.features, n, axis=0),
        np.repeat(problem.indices, n),
        bank_of(problem.bank),
        negatives=shifted,
    )
    actual = losses.mean(keepdims=True), gradient.mean(axis=0, keepdims=True)
    noise = np.full(n, 1 / n)
    expected = reference.expected_nce(
        problem.features, problem.indices, problem.bank, temperature, log_z, noise, m
    )
    for part, value in zip(actual, expected, strict=True):
        size = (1 + np.abs(value).max()) * (1 + 1 / temperature)
        np.testing.assert_allclose(part, value, rtol=2e-5, atol=2e-6 * size)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_nce_gradient_tends_to_the_softmax_gradient_like_one_over_m(temperature):
    """With the true Z_i and noise that visits all instances equally, the error falls like 1/m."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((50, 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
    features, indices, n = rows[7:8] * 0.6 + rows[9:10] * 0.8, np.array([7], "int32"), len(rows)
    features = (features / np.linalg.norm(features)).astype("float32")
    bank = bank_of(rows)
    exact = losses_and_gradient(NonParametricSoftmax(temperature), features, indices, bank)[1]
    errors = []
    for repeats in (4, 16, 64):
        objective = NCE(n * repeats, temperature, partition=ExactPartition())
        drawn = np.tile(np.arange(n, dtype="int32"), (1, repeats))
        nce = losses_and_gradient(objective, features, indices, bank, negatives=drawn)[1]
        errors.append(np.linalg.norm(nce - exact))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert errors[-1] < 0.02 * np.linalg.norm(exact)
    np.testing.assert_allclose(ratios, 4, rtol=0.25)


@pytest.mark.parametrize("exclude_positive", [False, True])
def test_the_log_z_that_nce_stores_is_the_reference_s(exclude_positive):
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((30, 4))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")
    features, indices = rows[:3][::-1].copy(), np.arange(3, dtype="int32")
    objective = NCE(5, 0.5, sampler=UniformSampler(exclude_positive))
    negatives = rng.integers(3, 30, (3, 5)).astype("int32")
    losses_and_gradient(objective, features, indices, bank_of(rows), negatives=negatives)
    s = np.einsum("bd,bkd->bk", features, rows[negatives], dtype="float64") / 0.5
    own = np.exp((features * rows[:3]).sum(axis=1, dtype="float64") / 0.5)
    z = np.exp(s).mean(axis=1) * (29 if exclude_positive else 30) + exclude_positive * own
    np.testing.assert_allclose(numpy(objective.partition.log_z), np.log(z.mean()), rtol=1e-5)
    if not exclude_positive:
        noise = np.full(30, 1 / 30)
        again = reference.sampled_log_z(features, negatives, rows, 0.5, noise)
        np.testing.assert_allclose(np.log(z.mean()), again, rtol=1e-9)


def test_training_draws_fresh_noise_that_a_seed_repeats():
    bank = MemoryBank(500, 8, seed=0)
    batch = (numpy(bank.rows)[:4].astype("float32"), np.arange(4, dtype="int32"), bank)
    runs = []
    for _ in range(2):
        objective = NCE(20, 0.5, seed=11)
        runs.append([losses_and_gradient(objective, *batch)[0] for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


def test_half_precision_features_give_float32_losses():
    bank = MemoryBank(20, 8, seed=0)
    features = keras.ops.cast(numpy(bank.rows)[:4], "float16")
    losses = NonParametricSoftmax(0.02)(features, np.arange(4), bank)
    assert keras.backend.standardize_dtype(losses.dtype) == "float32"
    assert np.all(np.isfinite(numpy(losses)))


def test_a_sum_reports_what_its_terms_report():
    plain, noisy = NonParametricSoftmax(0.3), NCE(4, 0.2)
    total = 2.0 * plain + (noisy + plain) * 0.5
    assert total.terms == [(2.0, plain), (0.5, noisy), (0.5, plain)]
    assert total.temperature == 0.3
    assert list(total.report()) == ["log_z"]
    assert total.report()["log_z"] is noisy.partition.log_z
    assert not plain.report()


def test_python_s_sum_adds_objectives():
    first, second = NonParametricSoftmax(0.3), NCE(4, 0.2)
    assert sum([first, 0.5 * second]).terms == [(1.0, first), (0.5, second)]
    assert sum([first]) is first


class Reports(NonParametricSoftmax):
    def report(self):
        return {"own": self.temperature}


def test_a_sum_reports_all_names_and_of_two_with_the_same_the_first():
    first, second = NCE(4, 0.2), NCE(4, 0.2)
    total = first + second + Reports(0.3)
    assert set(total.report()) == {"log_z", "own"}
    assert total.report()["log_z"] is first.partition.log_z


def test_a_sum_builds_and_trains_all_its_terms():
    bank = MemoryBank(6, 3, seed=0)
    total = NonParametricSoftmax(0.5) + ParametricSoftmax(0.5, seed=0)
    features, indices = numpy(bank.rows)[:2].astype("float32"), np.arange(2, dtype="int32")
    expected = sum(numpy(term(features, indices, bank)) for term in total.objectives)
    np.testing.assert_allclose(numpy(total(features, indices, bank)), expected, rtol=1e-6)
    built = NonParametricSoftmax(0.5) + ParametricSoftmax(0.5, seed=0)
    built.build(bank.shape)
    assert [v.shape for v in built.trainable_variables] == [(6, 3)]


def test_a_sum_takes_apart_sums_alone():
    plain = NonParametricSoftmax(0.3)
    plain.terms = ["of its own"]
    assert (plain + NCE(4)).objectives[0] is plain


@pytest.mark.parametrize(
    "make",
    [
        lambda: ObjectiveSum([]),
        lambda: ObjectiveSum(["nce"]),
        lambda: ObjectiveSum(NCE(4)),
        lambda: ObjectiveSum(None),
        lambda: ObjectiveSum([NCE(4)], [1.0, 2.0]),
        lambda: ObjectiveSum([NCE(4)], 0.5),
        lambda: ObjectiveSum([NCE(4)], ["half"]),
        lambda: NCE(4) + 1,
        lambda: 1 + NCE(4),
        lambda: sum([NCE(4)], 0.5),
        lambda: NCE(4) * float("nan"),
        lambda: "two" * NCE(4),
    ],
)
def test_what_is_no_sum_raises(make):
    with pytest.raises(ValueError, match=r"Received.*Expected"):
        make()


@pytest.mark.parametrize(
    "objective",
    [
        NCE(7, 0.2, 3.0, AliasSampler([1, 2, 3]), ExactPartition(5), shared_negatives=True),
        InfoNCE(9, 0.3, sampler=UniformSampler(exclude_positive=True), shared_negatives=False),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_the_configuration_holds_sampler_and_partition(objective):
    config = keras.saving.serialize_keras_object(objective)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config
    assert type(again.sampler) is type(objective.sampler)


@pytest.mark.parametrize("objective", [NonParametricSoftmax(), NCE(4), NCE(4) + NCE(4)])
def test_nothing_after_the_bank_is_given_by_position(objective):
    """A fourth argument could be meant as ``training`` or as ``negatives``."""
    bank = MemoryBank(6, 3, seed=0)
    with pytest.raises(TypeError, match="positional argument"):
        objective(numpy(bank.rows)[:1].astype("float32"), [0], bank, [[4, 5]])


def test_objectives_have_names():
    assert objectives.get("shared_nce").shared_negatives
    assert objectives.get("non_parametric_softmax").temperature == 0.07
    assert objectives.get("nce", seed=3).sampler.seed == 3
    with pytest.raises(ValueError, match=r"objective='NCE'\. Expected one of"):
        objectives.get("NCE")


def test_parametric_softmax_trains_its_weights():
    bank = MemoryBank(6, 3, seed=0)
    objective = ParametricSoftmax(0.5, seed=0)
    objective.build(bank.shape)
    assert [v.shape for v in objective.trainable_variables] == [(6, 3)]
    assert not NCE(4).trainable_variables


def test_shared_negatives_with_a_sampler_that_excludes_the_positive(bank):
    objective = NCE(2, sampler=UniformSampler(exclude_positive=True))
    with pytest.raises(ValueError, match="The positive of one image is a negative of another"):
        objective(UNIT, [0, 1, 2], bank, negatives=np.array([4, 5]))


@pytest.mark.parametrize("make", [NonParametricSoftmax, ParametricSoftmax])
def test_only_sampled_objectives_take_negatives(bank, make):
    with pytest.raises(TypeError, match="unexpected keyword argument 'negatives'"):
        make()(UNIT, [0, 1, 2], bank, negatives=np.array([[0], [1], [2]]))


@pytest.mark.parametrize("negatives", [[[4, 5], [4, SIZE], [5, 6]], [4, -1]])
def test_negatives_that_cannot_be_read(bank, negatives, monkeypatch):
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    negatives = np.array(negatives, "int32")
    losses, gradient = losses_and_gradient(
        NCE(2, 0.5), UNIT, np.arange(3, dtype="int32"), bank, negatives=negatives
    )
    wrong = np.any((negatives < 0) | (negatives >= SIZE), axis=-1) | np.zeros(3, bool)
    np.testing.assert_array_equal(np.isnan(losses), wrong)
    np.testing.assert_array_equal(np.all(gradient == 0, axis=1), wrong)


def test_noise_for_another_number_of_instances(bank):
    with pytest.raises(ValueError, match="3 probabilities for a bank of 10 instances"):
        NCE(2, sampler=AliasSampler([1, 1, 1]))(UNIT, [0, 1, 2], bank)


def test_excluding_the_only_instance():
    with pytest.raises(ValueError, match="at least 2 instances"):
        NCE(2, sampler=UniformSampler(exclude_positive=True))(UNIT[:1], [0], MemoryBank(1, 4))


def test_a_term_that_would_be_ignored_is_rejected():
    with pytest.raises(ValueError, match="'proximal_weight': 30"):
        ParametricSoftmax(proximal_weight=30)


def test_objectives_by_name_take_settings():
    objective = objectives.get("nce", temperature=0.2, num_negatives=7)
    assert (objective.temperature, objective.num_negatives) == (0.2, 7)
    assert isinstance(objectives.get("parametric_softmax", temperature=0.2), ParametricSoftmax)
    with pytest.raises(ValueError, match="num_negatives"):
        objectives.get("non_parametric_softmax", num_negatives=7)
    with pytest.raises(ValueError, match="with an objective"):
        objectives.get(objective, temperature=0.1)
