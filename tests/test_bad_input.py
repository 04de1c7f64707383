"""What was received, what was expected, how to fix it; and the bank is unchanged."""

import warnings
from functools import cache

import keras
import numpy as np
import pytest
from differentiation import losses_and_gradient, numpy
from models import Shared, small_model

from instdisc_core import (
    NCE,
    AliasSampler,
    InfoNCE,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    ParametricSoftmax,
    UniformSampler,
    objectives,
    validation,
)
from instdisc_core.callbacks import KNNEvaluation
from instdisc_core.evaluation import weighted_knn
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
    FirstBatches,
    MovingAveragePartition,
)

N, D = 10, 4
UNIT = np.eye(4, dtype="float32")[:3]
INDICES = {
    "negative": ([0, -1, 2], r"indices from -1 to 2.*\[0, 10\)"),
    "too large": ([0, 1, 10], r"indices from 0 to 10.*num_instances=11"),
    "float": (np.array([0.0, 1.0, 2.0]), r"dtype float.*integers.*astype"),
    "boolean": (np.array([True, False, True]), r"dtype bool.*integers"),
    "column": (np.array([[0], [1], [2]]), r"shape \(3, 1\).*shape \(batch,\).*reshape"),
    "scalar": (np.int64(3), r"shape \(\).*shape \(batch,\)"),
    "too few": ([0, 1], r"2 indices and 3 rows"),
}
FEATURES = {
    "wrong width": (np.eye(5, dtype="float32")[:3], r"shape \(3, 5\).*\(batch, 4\)"),
    "not 2-D": (UNIT[None], r"shape \(1, 3, 4\).*\(batch, 4\)"),
    "all zero": (np.zeros((3, 4), "float32"), r"3 of 3 rows are all zero.*length 1"),
    "integers": (np.eye(4, dtype="int32")[:3], r"dtype int32.*floating-point"),
    "a zero row": (np.diag([1.0, 0, 1, 1]).astype("float32")[:3], r"1 of 3 rows"),
}


@pytest.fixture
def bank():
    """A bank that must come out of the test as it went in."""
    bank = MemoryBank(N, D, seed=0)
    before = [numpy(v) for v in bank.variables]
    yield bank
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.fixture(params=["nce", "non_parametric_softmax", "info_nce", "parametric_softmax"])
def objective(request):
    return objectives.get(request.param)


@pytest.mark.parametrize(("indices", "message"), INDICES.values(), ids=INDICES)
def test_indices(bank, objective, indices, message):
    with pytest.raises(ValueError, match=message):
        bank.update(indices, UNIT)
    with pytest.raises(ValueError, match=message):
        objective(UNIT, indices, bank)
    if "rows" not in message:
        with pytest.raises(ValueError, match=message):
            bank.lookup(indices)
        native = keras.ops.convert_to_tensor(np.asarray(indices))
        with pytest.raises(ValueError, match=r"Received: .*Expected "):
            bank.lookup(native)


@pytest.mark.parametrize(("features", "message"), FEATURES.values(), ids=FEATURES)
def test_features(bank, objective, features, message):
    for given in (features, keras.ops.convert_to_tensor(features)):
        with pytest.raises(ValueError, match=message):
            bank.update([0, 1, 2], given)
        with pytest.raises(ValueError, match=message):
            objective(given, [0, 1, 2], bank)
        with pytest.raises(ValueError, match=message):
            bank.search(given, 1)


def test_features_that_are_not_normalized_cause_a_warning(bank, objective):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        objective(3 * UNIT, [0, 1, 2], bank)
    messages = [str(one.message) for one in caught if one.category is UserWarning]
    assert any("lengths from 3 to 3" in m and "keras.ops.normalize" in m for m in messages)


@pytest.mark.parametrize(
    "negatives", [[[0, 10]] * 3, [0, -1], [[0.5, 1.0]] * 3, [[[1]]], [[1, 2]] * 2]
)
def test_negatives(bank, negatives):
    with pytest.raises(ValueError, match=r"Received: .*negatives.*Expected "):
        NCE(2)(UNIT, [0, 1, 2], bank, negatives=np.array(negatives))


def test_no_negatives_at_all(bank):
    with pytest.raises(ValueError, match="num_negatives=0"):
        NCE(2)(UNIT, [0, 1, 2], bank, negatives=np.zeros((3, 0), "int32"))


def test_shared_negatives_with_a_sampler_that_excludes_the_positive(bank):
    objective = NCE(2, sampler=UniformSampler(exclude_positive=True))
    with pytest.raises(ValueError, match="The positive of one image is a negative of another"):
        objective(UNIT, [0, 1, 2], bank, negatives=np.array([4, 5]))


@pytest.mark.parametrize("make", [NonParametricSoftmax, ParametricSoftmax])
def test_only_sampled_objectives_take_negatives(bank, make):
    with pytest.raises(TypeError, match="unexpected keyword argument 'negatives'"):
        make()(UNIT, [0, 1, 2], bank, negatives=np.array([[0], [1], [2]]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NCE(num_negatives=0), "num_negatives=0.*integer >= 1"),
        (lambda: InfoNCE(num_negatives=-3), "num_negatives=-3.*integer >= 1"),
        (lambda: NCE(num_negatives=2.5), "num_negatives=2.5.*integer >= 1"),
        (lambda: NCE(temperature=0), r"temperature=0\..*\[1e-06, inf\)"),
        (lambda: NonParametricSoftmax(-0.1), r"temperature=-0.1.*\[1e-06, inf\)"),
        (lambda: InfoNCE(temperature=np.nan), "temperature=nan"),
        (lambda: ParametricSoftmax("0.1"), "temperature='0.1'"),
        (lambda: NCE(proximal_weight=-1), r"proximal_weight=-1.*\[0, inf\)"),
        (
            lambda: NCE(sampler=UniformSampler(exclude_positive=True), shared_negatives=True),
            "shared negatives.*exclude_positive=True",
        ),
        (lambda: NCE(sampler="uniform"), "sampler='uniform'.*UniformSampler"),
        (lambda: NCE(partition="last"), "partition='last'.*a PartitionPolicy"),
        (lambda: MemoryBank(0, 4), "num_instances=0"),
        (lambda: MemoryBank(4, True), "embedding_dim=True"),
        (lambda: MemoryBank(4, 4, momentum=1), r"momentum=1.*\[0, 1\)"),
        (lambda: MemoryBank(4, 4, momentum=-0.1), r"momentum=-0.1.*\[0, 1\)"),
        (lambda: MemoryBank(4, 4, dtype="int32"), "dtype='int32'.*float32"),
        (lambda: FirstBatches(0), "num_batches=0"),
        (lambda: ConstantPartition(0), r"value=0.*\(0, inf\)"),
        (lambda: MovingAveragePartition(1.0), r"decay=1.0.*\[0, 1\)"),
        (lambda: ExactPartition(0), "every=0"),
        (lambda: AliasSampler([0.5, 0.0]), "not all of them finite and positive"),
        (lambda: AliasSampler([[0.5]]), r"shape \(1, 1\)"),
        (lambda: objectives.get("triplet"), "objective='triplet'.*non_parametric_softmax"),
        (lambda: objectives.get(3), "objective=3.*or an Objective"),
        (lambda: objectives.get(["nce"]), r"objective=\['nce'\].*or an Objective"),
        (lambda: MemoryBank(4, 4, dtype=["int8"]), r"dtype=\['int8'\].*float32"),
        (lambda: InstanceDiscrimination(keras.layers.Dense(2), 5, objective="x"), "objective='x'"),
        (lambda: InstanceDiscrimination(keras.layers.Dense(2), 5, momentum=2), "momentum=2"),
        (lambda: KNNEvaluation(None, None, None, every=0), "every=0"),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrong", [-1, N, 2**31 - 1])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_values_that_cannot_be_read_are_left_out_and_counted(
    objective, wrong, momentum, monkeypatch
):
    """As on an accelerator, where reading them would make every step wait."""
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    bank, twin = (MemoryBank(N, D, momentum=momentum, seed=0) for _ in range(2))
    indices = np.array([1, wrong, 2], "int32")
    losses, gradient = losses_and_gradient(objective, UNIT, indices, bank, training=False)
    expected, slope = losses_and_gradient(
        objective, UNIT[[0, 2]], indices[[0, 2]], twin, training=False
    )
    assert np.isnan(losses[1])
    assert np.all(gradient[1] == 0)
    if "Softmax" in type(objective).__name__:  # the others draw one set of noise for each image
        np.testing.assert_allclose(losses[[0, 2]], expected, rtol=1e-5)
        np.testing.assert_allclose(gradient[[0, 2]], slope, atol=1e-5)
    bank.update(indices, UNIT)
    twin.update(indices[[0, 2]], UNIT[[0, 2]])
    np.testing.assert_array_equal(numpy(bank.rows), numpy(twin.rows))
    assert (int(numpy(bank.rejected_indices)), int(numpy(bank.rejected_embeddings))) == (1, 0)
    bank.update([3], np.zeros((1, D), "float32"))
    np.testing.assert_array_equal(numpy(bank.rows), numpy(twin.rows))
    assert (int(numpy(bank.rejected_indices)), int(numpy(bank.rejected_embeddings))) == (1, 1)


def test_a_query_that_is_not_finite_and_cannot_be_read(bank, monkeypatch):
    expected = [numpy(part) for part in bank.search(UNIT[[0, 2]], 2)]
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    queries = UNIT.copy()
    queries[1, 0] = np.nan
    found = [numpy(part) for part in bank.search(queries, 2)]
    assert np.all(np.isnan(found[0][1]))
    assert found[1][1].tolist() == [-1, -1]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[[0, 2]], theirs, atol=1e-6)


def test_which_integers_name_a_row(bank):
    for integers in ([0, -1, N], np.array([0, -1, N]), keras.ops.array([0, -1, N])):
        assert numpy(bank.contains(integers)).tolist() == [True, False, False]


def test_fit_reports_indices_that_a_step_could_not_read(monkeypatch):
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    model = small_model(compiled=False)
    images = np.random.default_rng(0).standard_normal((4, 3)).astype("float32")
    with pytest.raises(ValueError, match=r"1 instance indices in epoch 1 that name no row"):
        model.fit(images, np.array([0, 1, 2, 10]), batch_size=4, verbose=0)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_indices_of_one_batch_are_checked_before_the_step(method):
    model = small_model()
    with pytest.raises(ValueError, match=r"indices from 0 to 10\. Expected values in \[0, 10\)"):
        getattr(model, method)(np.ones((2, 3), "float32"), [0, 10])
    assert not model.built


@pytest.mark.parametrize("negatives", [[[4, 5], [4, N], [5, 6]], [4, -1]])
def test_negatives_that_cannot_be_read(bank, negatives, monkeypatch):
    monkeypatch.setattr(validation, "host_values", lambda array: None)
    negatives = np.array(negatives, "int32")
    losses, gradient = losses_and_gradient(
        NCE(2, 0.5), UNIT, np.arange(3, dtype="int32"), bank, negatives=negatives
    )
    wrong = np.any((negatives < 0) | (negatives >= N), axis=-1) | np.zeros(3, bool)
    np.testing.assert_array_equal(np.isnan(losses), wrong)
    np.testing.assert_array_equal(np.all(gradient == 0, axis=1), wrong)


@cache
def moved_by_int32(instances):
    """The losses of rows 0, 100 and 127 of a bank, and all rows after they moved."""
    bank, indices = MemoryBank(instances, D, seed=0), np.array([0, 100, 127], "int32")
    losses = NonParametricSoftmax(0.5)(UNIT, indices, bank)
    bank.update(indices, UNIT)
    return numpy(losses), numpy(bank.rows)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("instances", [128, 256, 300, 70_000])
def test_an_integer_is_an_index_whatever_its_width(dtype, instances):
    bank, indices = MemoryBank(instances, D, seed=0), np.array([0, 100, 127], dtype)
    losses = NonParametricSoftmax(0.5)(UNIT, indices, bank)
    bank.update(indices, UNIT)
    expected, rows = moved_by_int32(instances)
    np.testing.assert_array_equal(numpy(losses), expected)
    np.testing.assert_array_equal(numpy(bank.rows), rows)
    assert int(numpy(bank.rejected_indices)) == 0


def test_an_empty_batch_moves_nothing(bank):
    before = [numpy(variable) for variable in bank.variables]
    bank.update([], np.zeros((0, D), "float32"))
    bank.update(np.zeros(0, "int64"), keras.ops.zeros((0, D)))
    for variable, value in zip(bank.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


def test_noise_for_another_number_of_instances(bank):
    with pytest.raises(ValueError, match="3 probabilities for a bank of 10 instances"):
        NCE(2, sampler=AliasSampler([1, 1, 1]))(UNIT, [0, 1, 2], bank)


def test_excluding_the_only_instance():
    with pytest.raises(ValueError, match="at least 2 instances"):
        NCE(2, sampler=UniformSampler(exclude_positive=True))(UNIT[:1], [0], MemoryBank(1, 4))


@pytest.mark.parametrize("k", [0, 11, 2.0])
def test_k(bank, k):
    with pytest.raises(ValueError, match=rf"k={k}"):
        bank.search(UNIT, k)
    with pytest.raises(ValueError, match=rf"k={k}"):
        weighted_knn(UNIT, bank.rows, np.arange(10), k=k)


def test_weighted_knn(bank):
    labels = np.arange(10)
    with pytest.raises(ValueError, match=r"\(10, 4\) and train_labels of shape \(9,\)"):
        weighted_knn(UNIT, bank.rows, labels[:9])
    with pytest.raises(ValueError, match="temperature=0"):
        weighted_knn(UNIT, bank.rows, labels, temperature=0)
    with pytest.raises(ValueError, match=r"shape \(3, 3\).*\(batch, 4\)"):
        weighted_knn(UNIT[:, :3], bank.rows, labels)


class TestModel:
    """The same at the boundary of fit, whose steps two frameworks compile."""

    images = np.random.default_rng(0).standard_normal((N, 6)).astype("float32")

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls):
        model = small_model(keras.layers.Dense(8), N, D, NonParametricSoftmax(0.5))
        return Shared(model, (None, 6))

    @pytest.fixture
    def model(self, shared):
        return shared.as_new()

    @pytest.mark.parametrize("case", ["negative", "too large", "float", "column"])
    @pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
    def test_arrays_of_targets(self, model, method, case):
        targets, message = INDICES[case]
        before = [numpy(v) for v in model.weights]
        run = getattr(model, method)
        verbose = {} if method == "train_on_batch" else {"verbose": 0}
        with pytest.raises(ValueError, match=message):
            run(self.images[:3], np.asarray(targets), **verbose)
        for variable, value in zip(model.weights, before, strict=True):
            np.testing.assert_array_equal(numpy(variable), value)

    @pytest.mark.parametrize("wrong", [-1, N, 2**31 - 1])
    def test_a_generator_of_wrong_targets_trains_no_row(self, model, wrong):
        rows = numpy(model.memory_bank.rows)

        def batches():
            yield self.images[:3], np.array([1, wrong, 2], "int32")

        with pytest.raises(ValueError, match=r"Received: .*Expected values in \[0, 10\)"):
            model.fit(batches(), verbose=0, shuffle=False, steps_per_epoch=1)
        moved = np.any(numpy(model.memory_bank.rows) != rows, axis=1)
        assert not np.any(moved[[0, 3, 4, 5, 6, 7, 8, 9]])
        assert all(np.all(np.isfinite(numpy(w))) for w in model.weights)

    def test_no_targets(self, model):
        with pytest.raises(ValueError, match=r"no targets.*numpy\.arange"):
            model.fit(self.images, verbose=0)

    def test_a_loss_in_compile(self):
        model = small_model(n=N, dim=D)
        model.compile(optimizer="sgd", loss="mse")
        with pytest.raises(ValueError, match="the model brings its own"):
            model.fit(self.images, np.arange(N), verbose=0)

    def test_an_encoder_that_does_not_pool(self):
        model = InstanceDiscrimination(keras.layers.Conv2D(2, 3), N, D)
        with pytest.raises(ValueError, match=r"shape \(\w+, 3, 3, 2\).*pooling='avg'"):
            model(np.zeros((1, 5, 5, 1), "float32"))

    def test_a_projector_of_another_width(self):
        model = InstanceDiscrimination(keras.layers.Dense(8), N, D, projector=keras.layers.Dense(5))
        with pytest.raises(ValueError, match=r"shape \(\w+, 5\).*embedding_dim"):
            model(self.images)
