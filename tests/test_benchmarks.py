"""The benchmarks run, check what they time, and store what they measure; here on small problems."""

import io
import json
import random
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from instdisc_core import NonParametricSoftmax, recipes

pytest.importorskip("faiss", reason="the benchmark of search runs against FAISS")
pytest.importorskip("imagehash", reason="near-duplicates are found by it, too")
if not Path("/proc/self/clear_refs").exists():
    pytest.skip("peaks of memory are read from Linux's /proc", allow_module_level=True)

sys.path.append(str(Path(__file__).parent.parent))  # last: what is tested is what is installed

from benchmarks import (
    agreement,
    all_pairs,
    bank,
    cifar,
    encoders,
    end_to_end,
    frameworks,
    gpu,
    harness,
    methods,
    names,
    near_duplicates,
    newcomer,
    objectives,
    pretrained,
    search,
    step,
    storage,
    verdict,
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a benchmark's main with these arguments; returns what it stored."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    harness.RESULTS.parent.mkdir()
    monkeypatch.setattr(harness, "memory", lambda module, names: dict.fromkeys(names, 1))
    monkeypatch.setattr(harness, "floors", partial(harness.floors, side=64, volume=2**16))

    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark", *(str(a) for a in arguments)])
        module.main()
        stored = [json.loads(path.read_text()) for path in harness.RESULTS.glob("*.json")]
        return stored[0] if stored else None

    return run


SMALL = ("--num-instances", 500, "--batch-size", 8, "--num-negatives", 16, "--rounds", 2)


def test_objectives(run):
    stored = run(objectives, *SMALL)
    assert set(stored["errors"]) == set(stored["floor_seconds"]) < set(stored["seconds"])
    for name, seconds in stored["seconds"].items():
        assert 0 < seconds["fastest"] <= seconds["median"] <= seconds["slowest"], name
        ratio = stored["seconds"][names.PUBLIC]["median"] / seconds["median"]
        assert stored["times_faster"][name] == ratio
    rates = stored["floors"]
    exact = max(
        4 * 8 * 500 * 128 / rates["operations_per_second"], 500 * 512 / rates["bytes_per_second"]
    )
    assert stored["floor_seconds"]["exact softmax"] == pytest.approx(exact)
    assert stored["machine"]["backend"] == keras.backend.backend()


@pytest.mark.on_one_backend
def test_objectives_over_the_number_of_images(run, monkeypatch):
    monkeypatch.setattr(objectives, "SCALING", (50, 100, 200))
    stored = run(objectives, *SMALL, "--scaling", "--largest", 100, "--passes", 2)
    assert list(stored["seconds"]) == ["50", "100"]


@pytest.mark.on_one_backend
def test_peak_memory_of_a_run(run, capsys):
    assert run(objectives, *SMALL, "--memory", "exact softmax") is None
    assert int(capsys.readouterr().out.split()[-1]) >= 0
    ones = keras.ops.ones

    def held(megabytes):
        return harness.peak_extra_bytes(lambda: ones((megabytes, 2**18)) + 1, lambda: ones(8))

    assert held(1) < 100 * 2**20 < held(300)


@pytest.mark.on_one_backend
@pytest.mark.parametrize(("factor_of_losses", "factor_of_gradient"), [(1, 1.01), (1.01, 1)])
def test_what_is_wrong_is_not_timed(run, monkeypatch, factor_of_losses, factor_of_gradient):
    def wrong(self, features, *args):
        losses, gradient = right(self, features, *args)
        return factor_of_losses * losses, factor_of_gradient * gradient

    right = NonParametricSoftmax.losses_and_gradient
    monkeypatch.setattr(NonParametricSoftmax, "losses_and_gradient", wrong)
    with pytest.raises(AssertionError, match="exact softmax is wrong"):
        run(objectives, *SMALL)


def test_the_baseline_is_nce():
    """In the limit of its constant Z: against the reference, with its own negatives."""
    from instdisc_core.testing import reference
    from instdisc_core.testing.strategies import unit_rows

    rng = np.random.default_rng(0)
    rows, features = unit_rows(rng, 40, 8), unit_rows(rng, 4, 8)
    indices = np.arange(4, dtype="int32")
    public = objectives.baseline.NCE(rows, 5, 0.07, 90.0)
    drawn = np.concatenate([indices[:, None], rng.integers(0, 40, (4, 5))], axis=1).astype("int32")
    tensor = keras.ops.convert_to_tensor
    losses = public.losses(tensor(features), tensor(drawn))
    noise = np.full(40, 1 / 40)
    expected = reference.nce(features, indices, rows, 0.07, drawn[:, 1:], np.log(90.0), noise)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(losses), expected[0], rtol=1e-4)
    for result in public.step(tensor(features), tensor(indices)):
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(result)))
    softmax = objectives.baseline.softmax(rows, 0.07)(tensor(features), tensor(indices))
    for result, value in zip(
        softmax, reference.softmax(features, indices, rows, 0.07), strict=True
    ):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(result), value, rtol=1e-3, atol=1e-4)


FEW = ("--sizes", 60, 500, "--counts", 1, 3)


def test_search(run):
    threads = search.faiss.omp_get_max_threads()
    stored = run(search, "--num-instances", 500, "--queries", 7, "--k", 5, "--rounds", 2, *FEW)
    found = [(one["num_instances"], one["queries"]) for one in stored["sweep"]]
    assert found == [(60, 1), (60, 3), (500, 1), (500, 3)]
    assert all(set(one["seconds"]) == set(stored["seconds"]) for one in stored["sweep"])
    assert stored["int8"]["num_instances"] == 500
    assert set(stored["seconds"]) == {names.SEARCH, names.FAISS, names.WHOLE}
    assert max(stored["errors"].values()) < 1e-5
    for name, seconds in stored["seconds"].items():
        ratio = stored["seconds"][names.FAISS]["median"] / seconds["median"]
        assert stored["times_faster"][name] == ratio
    assert search.faiss.omp_get_max_threads() == threads, "of the whole process, so of PyTorch too"


WRONG_SEARCHES = {
    "missed a neighbor": lambda scores, indices: (scores[:, 1:], indices[:, 1:]),
    "missed a neighbor, twice": lambda scores, indices: (
        scores[:, :-1],
        indices[:, [0, 0, 1, 2, 3]],
    ),
    "scores are off": lambda scores, indices: (1.001 * scores[:, :-1], indices[:, :-1]),
}


@pytest.mark.on_one_backend
@pytest.mark.parametrize("fault", WRONG_SEARCHES)
def test_a_wrong_search_is_not_timed(run, monkeypatch, fault):
    def wrong(args, bank, queries):
        def ours(queries):
            found = (keras.ops.convert_to_numpy(x) for x in bank.search(queries, args.k + 1))
            return WRONG_SEARCHES[fault](*found)

        return {**candidates(args, bank, queries), names.SEARCH: ours}

    candidates = search.candidates
    monkeypatch.setattr(search, "candidates", wrong)
    with pytest.raises(AssertionError, match=f"MemoryBank.search('s)? {fault.split(',')[0]}"):
        run(search, "--num-instances", 500, "--queries", 7, "--k", 5, "--rounds", 1)


@pytest.mark.on_one_backend
def test_bank(run, monkeypatch):
    monkeypatch.setattr(bank, "STEPS", 2)
    monkeypatch.setattr(bank, "sampler_seconds", partial(bank.sampler_seconds, 100))
    sizes = ("--small", 40, "--large", 80, "--num-instances", 300, "--batch-size", 8)
    stored = run(bank, *sizes, "--rounds", 2)
    accuracy = stored["storage"]["accuracy"]
    for kind in ("random rows", "clustered rows"):
        gradient = {dtype: accuracy[dtype][kind]["gradient"] for dtype in bank.DTYPES}
        assert gradient["float32"] < 1e-5 < gradient["float16"] < gradient["int8"] < 0.1
        assert accuracy["float32"][kind]["recall_at_10"] == 1
    update = stored["update"]
    assert update["ratio"] == update["seconds"]["80"] / update["seconds"]["40"]
    assert [accuracy[dtype]["bytes_per_image"] for dtype in bank.DTYPES] == [512, 256, 256, 132]
    assert set(stored["samplers"]["seconds"]) == {"UniformSampler", "AliasSampler"}


@pytest.mark.on_one_backend
def test_storage(run, tmp_path):
    stored = run(storage, *SMALL, "--folder", tmp_path)
    assert set(stored["seconds"]) == set(names.STORED_DTYPES)
    for operations in stored["seconds"].values():
        assert set(operations) == set(names.STORAGE_OPERATIONS)
        assert all(set(places) == set(names.PLACES) for places in operations.values())


@pytest.mark.on_one_backend
def test_a_large_bank_is_created_and_used(monkeypatch, tmp_path, capsys):
    sizes = (*SMALL, "--large", 600, "--path", tmp_path / "bank.rows")
    for name, measured in (("create", {"create"}), ("use", {"open", "flush", "flush, again"})):
        arguments = ["benchmark", *(str(a) for a in sizes), "--stage", name]
        monkeypatch.setattr(sys, "argv", arguments)
        storage.main()
        found = json.loads(capsys.readouterr().out)
        assert measured <= set(found["seconds"])
        assert 0 < found["after"]["anonymous"] <= found["after"]["resident"] <= found["peak"]


@pytest.mark.on_one_backend
def test_step(run, monkeypatch):
    def small(depth, shape, stem, width):
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8)])

    monkeypatch.setattr(step, "resnet", small)
    stored = run(step, *SMALL)
    for name, seconds in stored["seconds"].items():
        assert stored["share"][name] == seconds["ours"] / seconds["step"]


NETWORK = ("--size", 8, "--depth", 10, "--width", 16, "--batch-size", 8, "--rounds", 1)


@pytest.fixture
def network(monkeypatch):
    """Arguments for a small network, without what takes long to compile."""
    if keras.backend.backend() == "jax":
        pytest.importorskip("flax", reason="the native network is written in Flax")
    monkeypatch.setattr(encoders, "COMPILED", {"graph": False})
    monkeypatch.setattr(encoders, "DTYPES", ("float32",))
    return NETWORK


@pytest.mark.usefixtures("uncompiled")
def test_encoders(run, network):
    found = run(encoders, *network)["float32"]
    assert set(found["seconds"]) == set(found["errors"]) > {names.KERAS_ENCODER}
    medians = {name: seconds["median"] for name, seconds in found["seconds"].items()}
    fastest = min(set(medians) - {names.KERAS_ENCODER}, key=medians.get)
    assert found["ratio"] == medians[names.KERAS_ENCODER] / medians[fastest]


@pytest.mark.on_one_backend
def test_end_to_end(run, network):
    stored = run(end_to_end, *network, "--images", 16, "--workers", 0)
    plain = {names.PLAIN} if keras.backend.backend() == "torch" else set()
    ours = {names.OURS, names.OURS_TWO_VIEWS}
    rates = stored["images_per_second"]
    assert set(rates["fit"]) - {names.LIGHTLY} == {*ours, names.BARE, *plain}
    assert set(rates["predict"]) == set(rates["evaluate"]) == {names.OURS, *plain}
    for method, seconds in stored["seconds"].items():
        assert rates[method] == {name: 16 / s["median"] for name, s in seconds.items()}
    fit, times = rates["fit"], stored["times_of_the_bare_step"]
    assert times == pytest.approx({name: fit[names.BARE] / rate for name, rate in fit.items()})


@pytest.mark.on_one_backend
@pytest.mark.parametrize("fault", ["the loss is not finite", "a row of the bank stays"])
def test_an_epoch_that_trains_wrongly_is_not_timed(fault):
    class Training:
        bank = np.zeros((3, 2))

        def epoch(self):
            self.bank[: 2 if "row" in fault else 3] += 1
            return float("nan") if "loss" in fault else 1.0

    with pytest.raises(AssertionError, match=r"plain PyTorch: (loss nan|rows of the bank)"):
        end_to_end.require_trained({names.PLAIN: Training()})


@pytest.mark.on_one_backend
def test_views_in_plain_pytorch_are_views():
    """Of their size, all different, and the same for the same seed."""
    pytest.importorskip("torch", reason="written in PyTorch")
    from benchmarks.native import torch_epoch

    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 16, 3), "uint8"))
    random.seed(0)
    first = [np.asarray(torch_epoch.view(image, 8, (0.2, 1.0), 0.5)) for _ in range(20)]
    random.seed(0)
    again = [np.asarray(torch_epoch.view(image, 8, (0.2, 1.0), 0.5)) for _ in range(20)]
    assert {v.shape for v in first} == {(8, 8, 3)}
    assert np.array_equal(first, again)
    assert len({v.tobytes() for v in first}) == 20
    unchanged = np.asarray(torch_epoch.jitter(image, 0, 0), int)
    assert np.abs(unchanged - np.asarray(image)).mean() < 2, "but for rounding in HSV"


@pytest.mark.on_one_backend
def test_runs_alternate_and_what_is_not_written_is_seen():
    order = []
    harness.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, 1)
    assert order == ["a", "b", "a", "b", "a", "b"]
    (array,) = harness.poisoned((2, 2))
    array[0] = 1
    assert not harness.relative_error(array, np.ones((2, 2))) < 1
    assert frameworks.device() == "cpu" or frameworks.on_accelerator()


def smooth_photos(folder, count=24):
    """Files with shapes that alterations keep."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), "uint8"))
        coarse.resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.mark.on_one_backend
def test_altered_copies_are_planted_and_found(run, tmp_path):
    one, other = (smooth_photos(tmp_path / name) for name in ("one", "other"))
    arguments = ("--photos", 20, "--each", 2, "--epochs", 1, "--work", tmp_path / "work")
    stored = run(near_duplicates, "--choose", one, "--report", f"other={other}", *arguments)
    assert set(stored["sets"]) == {"chosen on", "other"}
    for found in stored["sets"].values():
        assert (found["photos"], found["copies"]) == (20, 14)
        for method in found["methods"].values():
            assert set(method["recall_by_alteration"]) == {
                alter.__name__ for alter in near_duplicates.ALTERATIONS
            }
        alike = found["methods"]["perceptual hash"]["recall_by_alteration"]
        assert alike["compressed"] == 1 > alike["mirrored"]


@pytest.mark.on_one_backend
def test_pairs_are_scored_by_what_was_planted():
    planted = {(0, 5): "cropped", (1, 6): "cropped", (2, 7): "mirrored"}
    pairs, distances = [(0, 5), (2, 7), (1, 6), (3, 4)], np.array([0.1, 0.4, 0.2, 0.2])
    found = near_duplicates.scores(pairs, distances, planted, 0.25)
    assert (found["precision"], found["recall"], found["f1"]) == (2 / 3, 2 / 3, 2 / 3)
    assert found["recall_by_alteration"] == {"cropped": 1, "mirrored": 0}
    assert near_duplicates.best_threshold(pairs, distances, planted) == 0.4


@pytest.mark.on_one_backend
def test_many_embeddings_are_searched_and_their_copies_found(run, monkeypatch):
    stored = run(all_pairs, "--images", 400, "--copies", 30)
    assert next(iter(stored["calls"])) == "near_duplicates()"
    assert all(call["seconds"] >= 0 <= call["bytes"] for call in stored["calls"].values())
    monkeypatch.setattr(all_pairs, "NOISE", 2)  # copies that are not near
    with pytest.raises(AssertionError):
        run(all_pairs, "--images", 400, "--copies", 30)


@pytest.mark.on_one_backend
def test_a_newcomer_s_steps_but_pip_and_the_browser(tmp_path):
    photos = smooth_photos(tmp_path / "some", 6)
    names = newcomer.copied([photos], 4, tmp_path / "photos")
    assert len(names) == 4
    assert {(tmp_path / "photos" / n).read_bytes() for n in names} < {
        path.read_bytes() for path in photos.iterdir()
    }
    with pytest.raises(ValueError, match=r"6 photos in .*some, not 7"):
        newcomer.copied([photos], 7, tmp_path / "more")
    data = newcomer.altered(tmp_path / "photos" / names[0], np.random.default_rng(0))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (36, 32))
    drops = {"a": {"names": ["a", "b"], "wall": 1}, "b": {"names": ["a", "b"], "wall": 3}}
    assert newcomer.summary(drops) == {"copies": 2, "first": 1, "among_ten": 2, "seconds": 2}
    variables = newcomer.environment(tmp_path)
    assert not {"KERAS_BACKEND", "PYTHONPATH", "OMP_NUM_THREADS"} & set(variables)
    code = "import os; sum(range(10**6)); print(os.getcwd())"
    said, seconds = newcomer.run(sys.executable, "-c", code, folder=tmp_path, variables=variables)
    assert Path(said.strip()) == tmp_path
    assert min(seconds.values()) > 0
    row = {"name": names[0], "vector": [0.6, 0.8], "neighbors": {"ids": [1], "distances": [0.1]}}
    read = {"rows": 4, "columns": list(row), "first": row}
    assert newcomer.checked(read, names)["rows"] == 4
    with pytest.raises(AssertionError):
        newcomer.checked({**read, "first": {**row, "vector": [1, 1]}}, names)


def test_a_newcomer_types_what_the_readme_says():
    train, serve = newcomer.commands((newcomer.ROOT / "README.md").read_text())
    assert train == ["instdisc", "train", "photos/", "--output", "found"]
    assert serve == ["instdisc", "serve", "found", "--open"]
    with pytest.raises(ValueError, match="no longer has"):
        newcomer.commands("nothing")


@pytest.fixture
def hour(tmp_path, monkeypatch):
    """Run benchmarks.gpu with these arguments; returns how its parts ended."""
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(harness, "memory", lambda module, names: dict.fromkeys(names, 1))
    monkeypatch.setattr(harness, "floors", partial(harness.floors, side=64, volume=2**16))
    monkeypatch.setattr(bank, "STEPS", 2)
    monkeypatch.setattr(bank, "sampler_seconds", partial(bank.sampler_seconds, 100))

    def run(*arguments):
        given = ["benchmark", "--work", str(tmp_path / "work"), *arguments]
        monkeypatch.setattr(sys, "argv", given)
        gpu.main()
        path = harness.RESULTS / f"{harness.labeled('gpu')}.json"
        return json.loads(path.read_text())

    return run


@pytest.mark.on_one_backend  # XLA compiles encoders for minutes
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_an_hour_on_a_gpu_is_rehearsed(hour, capsys):
    found = hour("--rehearse")
    assert found["parts"] == dict.fromkeys(gpu.PARTS, gpu.DONE)
    assert found["machine"]["device"] == frameworks.device()
    assert "all parts are done" in capsys.readouterr().out
    rows = {path.stem for path in harness.RESULTS.glob("table1-*/*.json")}
    assert rows == {f"{row}-seed0" for row in gpu.table1.ROWS}


@pytest.mark.on_one_backend
def test_an_hour_continues_with_what_is_missing(hour, monkeypatch, tmp_path):
    ends, started = {"search": gpu.FAILED, "step": gpu.STOPPED}, []

    def run(part, args, minutes):
        started.append(part.module)
        return ends.get(part.module, gpu.DONE)

    monkeypatch.setattr(gpu, "run_in_a_process", run)
    data = gpu.write_toy_images(tmp_path / "toy")
    first = hour("--data", data, "--minutes", "1000")
    assert len(started) == len(gpu.PARTS)
    assert first["parts"]["search"] == gpu.FAILED
    assert first["parts"]["step"] == gpu.FAILED, "it had all the time of a call"
    started.clear()
    hour("--data", data)
    assert not started
    hour("--data", data, "--parts", "search")
    assert started == ["search"]


@pytest.mark.on_one_backend
def test_a_training_stops_in_time_and_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    data = gpu.write_toy_images(tmp_path / "toy")
    stops = cifar.Deadline(minutes=0)
    flags = ["--data", data, "--budget", "--epochs", "2", "--work", str(tmp_path / "work")]
    parser = harness.parser(cifar.__doc__)
    cifar.add_arguments(parser)
    args = parser.parse_args(flags)
    train, test = cifar.load_for(args)
    recipe = cifar.recipes.get("small-cifar10", width=4, **cifar.changes(args, {}))
    run = partial(cifar.run, tmp_path, "row", 0, recipe, train, test, args, course=None)
    with pytest.raises(SystemExit) as stopped:
        run(stops)
    assert stopped.value.code == cifar.UNFINISHED
    assert not (tmp_path / "row-seed0.json").exists()
    assert run(cifar.Deadline())["row"] == "row"
    log = (tmp_path / "work" / tmp_path.name / "row-seed0" / "log.csv").read_text()
    assert len(log.splitlines()) == 3, "a header and two epochs"


@pytest.mark.framework_independent
def test_digits_are_split_evenly_and_stored_apart():
    train, test = cifar.load(cifar.DIGITS, 10_000, 5_000)
    assert (len(train), len(test)) == (1437, 360)
    assert train.images([0]).shape == (1, 32, 32, 3)
    assert [len(part) for part in cifar.load(cifar.DIGITS, 500, 100)] == [500, 100]
    parser = harness.parser(cifar.__doc__)
    cifar.add_arguments(parser)
    args = parser.parse_args(["--budget", "--data", cifar.DIGITS])
    assert cifar.folder("methods", args).name.startswith("methods-digits-small")
    assert cifar.changes(args, {}) == {"num_neighbors": cifar.DIGITS_NEIGHBORS}


@pytest.mark.on_one_backend
def test_an_archive_of_images_is_unpacked_once(tmp_path):
    gpu.write_toy_images(tmp_path / "toy")
    archive = tmp_path / "toy.tar.xz"
    with gpu.tarfile.open(archive, "w:xz") as file:
        for part in ("train", "test"):
            file.add(tmp_path / "toy" / part, part)
    folder = gpu.folder_of(str(archive), tmp_path / "work")
    assert len(cifar.load(folder)[0]) == 40
    archive.unlink()
    assert gpu.folder_of(str(archive), tmp_path / "work") == folder


@pytest.mark.on_one_backend
def test_agreement_counts_pairs_whose_accuracies_are_apart():
    values = {"a": (0.5, 0.1), "b": (0.6, 0.3), "c": (0.61, 0.2), "d": (0.9, 0.05)}
    assert agreement.agreement(values) == (2, 5), "b and c are not ranked; d is, wrongly"


@pytest.mark.on_one_backend
def test_the_verdict_and_files_of_weights_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(verdict, "STAGES", (0, 1))
    monkeypatch.setattr(verdict, "digits", lambda: verdict.folder(toy))
    toy = Path(gpu.write_toy_images(tmp_path / "toy"))
    monkeypatch.setattr(sys, "argv", ["verdict", "--folders", str(toy / "train")])
    verdict.main()
    (path,) = (tmp_path / "results").glob("verdict-*/train-seed0.json")
    result = json.loads(path.read_text())
    assert [row["epochs"] for row in result["stages"]] == [0, 1]
    assert set(agreement.features_of(result)) == {"pixels", "0 epochs", "1 epochs"}
    assert set(result["pixels"]["tasks"]) == {"altered copy", "warped copy"}

    encoder = recipes.get("small-cifar10").build(8, seed=5).encoder
    encoder.save_weights(tmp_path / "cifar10.weights.h5")
    rows = ["--rows", "frozen", "adapted, rate 0.1", "--epochs", "1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["pretrained", "--signs", str(toy / "train"), *rows])
    pretrained.main()
    stored = {path.stem for path in (tmp_path / "results").glob("pretrained-*/*.json")}
    assert stored == {"frozen-seed0", "adapted-rate-0.1-seed0"}


@pytest.mark.on_one_backend
def test_methods_train_by_the_costs_of_the_same_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    harness.RESULTS.mkdir()
    small = {"width": 4, "batch_size": 8, "num_neighbors": 20}
    rows = {"untrained": {**small, "epochs": 0}, "exact": small, "two-views": {**small, "views": 2}}
    monkeypatch.setattr(methods, "ROWS", rows)
    data = gpu.write_toy_images(tmp_path / "toy")
    flags = ["methods", "--data", str(data), "--work", str(tmp_path / "work"), "--rounds", "2"]

    def run(*more):
        monkeypatch.setattr(sys, "argv", [*flags, *more])
        methods.main()

    run("--budget", "--costs")
    path = harness.RESULTS / "methods-costs-torch-cpu.json"
    costs = json.loads(path.read_text())
    assert costs["recipe"] == "small-cifar10"
    assert set(costs["seconds"]) == {"exact", "two-views"}
    exact = costs["seconds"]["exact"]["median"]
    costs["seconds"] = {"exact": {"median": exact}, "two-views": {"median": 2 * exact}}
    path.write_text(json.dumps(costs))
    run("--budget", "--minutes-each", str(4 * 5 * exact / 60))
    stored = [json.loads(path.read_text()) for path in harness.RESULTS.glob("*/*-seed0.json")]
    epochs = {result["row"]: result["recipe"]["epochs"] for result in stored}
    assert epochs == {"untrained": 0, "exact": 4, "two-views": 2}
    with pytest.raises(SystemExit, match="not of modern-cifar10"):
        run()
