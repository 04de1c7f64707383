"""Several ranks of torch.distributed end as one device does, and find what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("ranks of torch.distributed", allow_module_level=True)

from devices import torch_loops as loops
from devices.trainings import (
    CASES,
    EQUAL,
    Case,
    N,
    assert_equal,
    batches,
    build,
    images,
    numpy,
    outcome,
    trained,
    trained_nnclr,
)

from instdisc_core import Checkpoints, Communicator, MemoryBank, get_bank_ops
from instdisc_core.callbacks import read_log
from instdisc_core.data import ArrayBatches

TESTS = Path(__file__).parent.parent
RUNS = [(name, ranks) for ranks in (2, 3) for name, c in CASES.items() if ranks == 2 or c.sharded]


# Else torchrun's next attempt finds the addresses of the last one in its store.
OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def run(*command, seconds=600):
    """Run a script of the tests; raise with what it printed if it fails or takes too long."""
    path = [*filter(None, [os.environ.get("PYTHONPATH")]), str(TESTS)]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path)}
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, **environment, **OWN_STORE},
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        process.terminate()  # torchrun then ends its ranks
    assert process.returncode == 0, said[-6000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two ranks wrote, and then three."""
    folder = tmp_path_factory.mktemp("ranks")
    run(TESTS / "devices" / "torch_ranks.py", folder, 2, 3)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of two ranks found, next to arrays."""
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def expected():
    """What one device finds; a case is trained once."""
    cache = {}

    def of(name):
        if name not in cache:
            cache[name] = trained(CASES[name])
        return cache[name]

    return of


def assert_equal_on_ranks(folder, name, ranks, expected, tolerance=1e-5):
    """Every rank ended with these arrays."""
    for rank in range(ranks):
        assert_equal(folder / f"{name}-{ranks}-{rank}.npz", expected, tolerance)


@pytest.mark.parametrize(("name", "ranks"), RUNS)
def test_fit_on_ranks_equals_fit_on_one_device(name, ranks, folder, expected):
    assert_equal_on_ranks(folder, name, ranks, expected(name), CASES[name].tolerance)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("bank", ["whole", "sharded"])
def test_a_loop_with_ddp_equals_one_device(bank, ranks, folder):
    assert_equal_on_ranks(folder, f"loop-{bank}", ranks, loops.trained(sharded=False))


@pytest.mark.parametrize("ranks", [2, 3])
def test_nnclr_on_ranks_equals_one_device(ranks, folder):
    assert_equal_on_ranks(folder, "nnclr", ranks, trained_nnclr(), EQUAL)


def test_arrays_are_divided_among_the_ranks(folder):
    model = build(Case())
    model.fit(ArrayBatches(images(), np.arange(N), None, 12, seed=5), verbose=0)
    assert_equal_on_ranks(folder, "arrays", 2, outcome(model))


def test_a_file_of_two_ranks_loads_on_one_device_and_on_three_ranks(folder):
    model = build(CASES["int8-sharded"])
    model.load_weights(folder / "int8.weights.h5")
    assert_equal_on_ranks(folder, "saved", 2, outcome(model), 1e-6)
    assert_equal_on_ranks(folder, "loaded", 3, outcome(model), 1e-6)
    whole = keras.saving.load_model(folder / "int8.keras")
    np.testing.assert_array_equal(outcome(whole)["rows"], outcome(model)["rows"])


@pytest.mark.parametrize("bank", ["whole", "sharded"])
def test_a_run_of_two_ranks_continues_on_one_device(bank, folder):
    case = Case("nce")
    whole, continued = build(case), build(case)
    whole.fit(batches(case), epochs=2, verbose=0)
    saver = Checkpoints(folder / f"run-{bank}")
    continued.fit(batches(case), epochs=2, verbose=0, callbacks=[saver])
    assert continued.history.epoch == [1]
    for what, values in outcome(whole).items():
        np.testing.assert_allclose(outcome(continued)[what], values, 0, 1e-5, err_msg=what)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("data", "on rank 1 data"),
        ("order", "on rank 1 order"),
        ("seed", "on rank 1 seed 6. Expected 5, as on rank 0"),
        ("num_instances", "on rank 1 num_instances 50. Expected 49, as on rank 0"),
        ("embedding_dim", "on rank 1 embedding_dim 9. Expected 8, as on rank 0"),
        ("temperature", "on rank 1 temperature 0.2. Expected 0.1, as on rank 0"),
        ("version", "on rank 1 version '0.0'. Expected"),
        ("distributed", "set_distribution(...) on PyTorch, which Keras"),
        ("weights", "ParametricSoftmax on 2 ranks"),
        ("wrapped", "a DistributedDataParallel in a model"),
    ],
)
def test_ranks_that_differ_do_not_start(what, says, found):
    for rank in range(2):
        assert says in found[rank]["disagreements"][what]


def test_mistakes_are_found(found):
    for rank in range(2):
        mistakes = found[rank]["mistakes"]
        assert "of rank 1, which is not that of rank 0" in mistakes["own update"]
        assert "log_z of rank 1, which is not that of rank 0" in mistakes["own Z"]
        assert "rows of rank 1, which is not that of rank 0" in mistakes["in fit"]
        assert mistakes["bank left out"]
    assert not found[1]["mistakes"]["bank in DDP"]  # rank 0's rows, which is why it is left out


def test_ranks_augment_apart_and_draw_the_same_negatives(found):
    first, second = (found[rank]["augmented"] for rank in range(2))
    assert first["negatives"] == second["negatives"]
    assert first["state"] != second["state"]
    assert first["state"][1] == second["state"][1]
    assert not np.isclose(first["drawn"], second["drawn"]).any()


def test_the_first_rank_writes_the_logs(folder):
    assert [row["epoch"] for row in read_log(folder / "log-0.csv")] == ["0", "1"]
    assert len(list((folder / "board-0").iterdir())) == 1
    assert not (folder / "log-1.csv").exists()
    assert not (folder / "board-1").exists()


def test_a_recipe_of_two_ranks_continues(folder, found):
    for of_rank in found:
        runs = of_rank["recipe"]
        epochs = [runs[name] for name in ("through 3", "continued 2", "continued 3")]
        assert epochs == [[0, 1, 2], [0, 1], [2]]
        np.testing.assert_allclose(runs["continued"], runs["through"], 0, 1e-6)
    for name in ("through", "continued"):
        written = folder / "recipe" / name
        assert [row["epoch"] for row in read_log(written / "log.csv")] == ["0", "1", "2"]
        bank = keras.saving.load_model(written / "model.keras").memory_bank
        np.testing.assert_allclose(numpy(bank.lookup(np.arange(10))), runs[name], 0, 1e-6)


def test_ranks_without_a_seed_start_with_the_rows_of_rank_0(folder):
    first, second = (np.load(folder / f"unseeded-2-{rank}.npz")["rows"] for rank in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("objective", ["exact", "nce", "shared_nce"])
def test_what_a_step_sends_does_not_depend_on_the_number_of_images(objective, sharded, found):
    gradients = 4 * sum(int(np.prod(v.shape)) for v in build(Case()).trainable_variables)
    small, large = found[0]["messages"][f"{objective}, sharded={sharded}"]
    assert small == large
    for step in small:
        sizes = [size for _, size in step]
        assert sizes.count(gradients) == 1  # joined once, also in the second fit
        assert sum(sizes) < gradients + 4000


def test_torchrun_without_a_process_group_builds_no_bank(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes that do not know each other.*init_process"):
        MemoryBank(4, 2)
    assert MemoryBank(4, 2, communicator=Communicator()).bank_ops is get_bank_ops()


def test_torchrun_starts_a_run_again_whose_rank_was_killed(tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    torchrun += ["--max-restarts", 1, "--monitor-interval", 0.2]
    run(*torchrun, TESTS / "devices" / "torch_killed.py", tmp_path)
    model = build(Case("nce"))
    model.fit(batches(Case("nce")), epochs=3, verbose=0)
    for bank in ("whole", "sharded"):
        assert_equal_on_ranks(tmp_path, bank, 2, outcome(model) | {"epochs": np.array([1, 2])})
