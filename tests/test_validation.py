"""What was received, what was expected, how to fix it; and the bank is unchanged."""

import warnings
from functools import cache

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import DIM, UNIT

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
)
from instdisc_core.callbacks import KNNEvaluation
from instdisc_core.partition import (
    ConstantPartition,
    ExactPartition,
    FirstBatches,
    MovingAveragePartition,
)

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
    "not 2-DIM": (UNIT[None], r"shape \(1, 3, 4\).*\(batch, 4\)"),
    "all zero": (np.zeros((3, 4), "float32"), r"3 of 3 rows are all zero.*length 1"),
    "integers": (np.eye(4, dtype="int32")[:3], r"dtype int32.*floating-point"),
    "a zero row": (np.diag([1.0, 0, 1, 1]).astype("float32")[:3], r"1 of 3 rows"),
}


@pytest.mark.parametrize(("indices", "message"), INDICES.values(), ids=INDICES)
def test_indices(bank, indices, message):
    with pytest.raises(ValueError, match=message):
        bank.update(indices, UNIT)
    if "rows" not in message:
        with pytest.raises(ValueError, match=message):
            bank.lookup(indices)
        native = keras.ops.convert_to_tensor(np.asarray(indices))
        with pytest.raises(ValueError, match=r"Received: .*Expected "):
            bank.lookup(native)


def test_the_remedy_is_one_that_helps(bank):
    with pytest.raises(ValueError, match=r"in a fixed order\.$"):
        bank.lookup([-1])


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")  # JAX has no int64
def test_indices_of_every_width_name_the_same_rows(dtype):
    bank, wanted = (MemoryBank(10, DIM, seed=0) for _ in range(2))
    given = [np.array([7, 2], dtype)]
    if dtype != "uint64":  # which Keras has not on PyTorch
        given.append(keras.ops.cast(np.array([7, 2]), dtype))
    for indices in given:
        bank.update(indices, UNIT[:2])
        wanted.update([7, 2], UNIT[:2])
        np.testing.assert_array_equal(numpy(bank.lookup(indices)), numpy(wanted.lookup([7, 2])))
    np.testing.assert_array_equal(numpy(bank.rows), numpy(wanted.rows))


@pytest.mark.parametrize(("features", "message"), FEATURES.values(), ids=FEATURES)
def test_features(bank, features, message):
    for given in (features, keras.ops.convert_to_tensor(features)):
        with pytest.raises(ValueError, match=message):
            bank.update([0, 1, 2], given)
        with pytest.raises(ValueError, match=message):
            bank.search(given, 1)


def test_features_that_are_not_normalized_cause_a_warning(bank):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        NonParametricSoftmax()(3 * UNIT, [0, 1, 2], bank)
    messages = [str(one.message) for one in caught if one.category is UserWarning]
    assert any("lengths from 3 to 3" in m and "keras.ops.normalize" in m for m in messages)


@cache
def moved_by_int32(instances):
    """The losses of rows 0, 100 and 127 of a bank, and all rows after they moved."""
    bank, indices = MemoryBank(instances, DIM, seed=0), np.array([0, 100, 127], "int32")
    losses = NonParametricSoftmax(0.5)(UNIT, indices, bank)
    bank.update(indices, UNIT)
    return numpy(losses), numpy(bank.rows)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("instances", [128, 256, 300, 70_000])
def test_an_integer_is_an_index_whatever_its_width(dtype, instances):
    bank, indices = MemoryBank(instances, DIM, seed=0), np.array([0, 100, 127], dtype)
    losses = NonParametricSoftmax(0.5)(UNIT, indices, bank)
    bank.update(indices, UNIT)
    expected, rows = moved_by_int32(instances)
    np.testing.assert_array_equal(numpy(losses), expected)
    np.testing.assert_array_equal(numpy(bank.rows), rows)
    assert int(numpy(bank.rejected_indices)) == 0


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
