"""Recipes: every setting reaches the model, and a run can be repeated and resumed."""

import json

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import NCE, NonParametricSoftmax, ParametricSoftmax, objectives, recipes
from instdisc_core.callbacks import LogFile, read_log
from instdisc_core.checkpoints import FolderLock
from instdisc_core.data import ImageArray

TINY = {"width": 4, "batch_size": 8, "epochs": 3, "embedding_dim": 8, "dtype_policy": "float32"}


def images(n=16, seed=0):
    return ImageArray(np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3)).astype("uint8"))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_where_it_comes_from_and_what_differs(name):
    recipe = recipes.get(name)
    text = str(recipe)
    assert recipe.source in text
    for sentence in recipe.deviations:
        assert sentence in text
    for setting, value in recipe.to_dict().items():
        if setting not in ("name", "source", "deviations"):
            assert f"  {setting}: {value}" in text
    assert json.loads(json.dumps(recipe.to_dict())) == recipe.to_dict()


def test_the_paper_s_settings():
    """Wu et al. and the official code, as the table of their settings has them."""
    cifar, imagenet = recipes.get("paper-cifar10"), recipes.get("paper-imagenet")
    common = {"momentum": 0.5, "optimizer": "sgd", "learning_rate": 0.03, "epochs": 200}
    assert {name: getattr(cifar, name) for name in common} == common
    assert {name: getattr(imagenet, name) for name in common} == common
    assert (cifar.batch_size, cifar.weight_decay, cifar.temperature) == (128, 5e-4, 0.1)
    assert (imagenet.batch_size, imagenet.weight_decay, imagenet.temperature) == (256, 1e-4, 0.07)
    assert (cifar.depth, cifar.stem, cifar.crop_size) == (18, "cifar", 32)
    assert (imagenet.depth, imagenet.stem, imagenet.crop_size) == (18, "imagenet", 224)
    assert cifar.knn_temperature == 0.1
    assert imagenet.knn_temperature == 0.07
    objective = imagenet.build_objective()
    assert (objective.num_negatives, objective.proximal_weight) == (4096, 30.0)
    assert isinstance(cifar.build_objective(), NonParametricSoftmax)
    assert isinstance(recipes.get("lemniscate-cifar10").build_objective(), NCE)


def test_a_change_is_a_deviation():
    recipe = recipes.get("paper-cifar10", epochs=20, momentum=0.5)
    assert recipe.epochs == 20
    assert recipe.deviations[-1] == "epochs is 20 instead of 200."
    with pytest.raises(ValueError, match="settings epoch that a recipe does not have"):
        recipes.get("paper-cifar10", epoch=20)
    with pytest.raises(ValueError, match=r"recipe 'paper'\. Expected one of 'paper-cifar10'"):
        recipes.get("paper")


def test_the_settings_reach_the_model():
    recipe = recipes.get(
        "small-cifar10",
        **TINY,
        momentum=0.25,
        objective="nce",
        objective_settings=(("num_negatives", 5), ("proximal_weight", 2.0)),
        temperature=0.3,
    )
    model = recipe.build(20, seed=0)
    assert model.memory_bank.shape == (20, 8)
    assert model.memory_bank.momentum == 0.25
    assert model.objective.temperature == 0.3
    assert (model.objective.num_negatives, model.objective.proximal_weight) == (5, 2.0)
    assert model.encoder.get_layer("conv5").output.shape[-1] == 32
    assert model.optimizer.weight_decay == recipe.weight_decay
    assert type(model.encoder.layers[1]).__name__ == "Rescaling"
    again = recipe.build(20, seed=0)
    for ours, theirs in zip(model.weights, again.weights, strict=True):
        assert np.array_equal(numpy(ours), numpy(theirs))


def test_an_unknown_optimizer_or_augmentation_is_named():
    with pytest.raises(ValueError, match=r"optimizer='adam'\. Expected 'sgd' or 'adamw'"):
        recipes.get("paper-cifar10", optimizer="adam").build(20)
    with pytest.raises(ValueError, match=r"augmentation='none'\. Expected one"):
        recipes.get("paper-cifar10", augmentation="none").build(20)


def test_objectives_by_name_take_settings():
    objective = objectives.get("nce", temperature=0.2, num_negatives=7)
    assert (objective.temperature, objective.num_negatives) == (0.2, 7)
    assert isinstance(objectives.get("parametric_softmax", temperature=0.2), ParametricSoftmax)
    with pytest.raises(ValueError, match="num_negatives"):
        objectives.get("non_parametric_softmax", num_negatives=7)
    with pytest.raises(ValueError, match="with an objective"):
        objectives.get(objective, temperature=0.1)


# -- the schedule


def test_steps_are_the_paper_s():
    schedule = recipes.Schedule(0.03, 200, milestones=[120, 160])
    rates = [float(schedule(step)) for step in (0, 119, 120, 159, 160, 199)]
    np.testing.assert_allclose(rates, [0.03, 0.03, 3e-3, 3e-3, 3e-4, 3e-4], rtol=1e-5)


def test_a_cosine_after_a_warm_up():
    schedule = recipes.Schedule(1.0, 110, warmup_steps=10)
    rates = [float(schedule(step)) for step in (0, 4, 9, 10, 60, 110, 500)]
    np.testing.assert_allclose(rates, [0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0], atol=1e-6)
    again = recipes.Schedule.from_config(schedule.get_config())
    assert float(again(33)) == float(schedule(33))


def test_weight_decay_is_as_strong_as_pytorch_s():
    """A constant weight, no gradient: PyTorch's L2 term runs through the momentum."""
    recipe = recipes.get("paper-cifar10", milestones=(), epochs=10_000)
    optimizer = recipe.build_optimizer(steps_per_epoch=100)
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    steps = 60
    for _ in range(steps):
        optimizer.apply([keras.ops.zeros(1)], [variable])
    w, velocity = 1.0, 0.0
    for _ in range(steps):
        velocity = 0.9 * velocity + 5e-4 * w
        w -= 0.03 * velocity
    lost, expected = 1 - float(numpy(variable)[0]), 1 - w
    assert 0.9 < lost / expected < 1.25


# -- a run


def test_a_run_is_written_down_and_continues_where_it_stopped(tmp_path, capsys):
    recipe = recipes.get("small-cifar10", **TINY)
    source = images()
    whole = recipe.train(source, seed=0, verbose=0)
    assert not capsys.readouterr().out
    (tmp_path / ".part-1-model.keras").touch()  # as a process leaves it that was killed
    recipe.train(source, tmp_path, seed=0, epochs=1, verbose=2)
    assert not list(tmp_path.glob(".part*"))
    assert "recipe small-cifar10, after" in capsys.readouterr().out
    assert len(read_log(tmp_path / "log.csv")) == 1, "it stopped after the first epoch"
    resumed = recipe.train(source, tmp_path, seed=0, verbose=0, save_freq=1)
    assert (tmp_path / "checkpoints" / "epoch-00002-step-0000001").is_dir()
    assert resumed.fit(source.batches(8, 0), verbose=0).epoch == [0], "a later fit is a new one"
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))

    run = json.loads((tmp_path / "recipe.json").read_text())
    assert run["recipe"] == recipe.to_dict()
    assert run["data"] == source.manifest.fingerprint
    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == ["0", "1", "2"]
    for other, what in ((images(seed=1), "data"), (source, "seed")):
        with pytest.raises(ValueError, match=f"holds another run: its {what} differs"):
            recipe.train(other, tmp_path, seed=1 if what == "seed" else 0, verbose=0)
    assert json.loads((tmp_path / "recipe.json").read_text()) == run


@pytest.mark.parametrize("text", ["", "[]", '{"recipe": ', "[" * 9_000, "7"])
def test_a_damaged_record_of_the_run_is_named(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.json, which is damaged|holds another run"):
        recipes.get("small-cifar10", **TINY).train(images(), tmp_path, verbose=0)
    assert (tmp_path / "recipe.json").read_text() == text


@pytest.mark.parametrize(
    "text",
    ["epoch,loss\n0,1.0\n1", "epoch,loss\n0\n", "epoch,loss\nx,1\n", "epoch,loss\n0,1\r1\n"],
)
def test_a_damaged_log_is_named_before_the_first_step(tmp_path, text):
    (tmp_path / "log.csv").write_bytes(text.encode())
    with pytest.raises(ValueError, match=r"log\.csv, wh.*Restore it, or remove it"):
        read_log(tmp_path / "log.csv")
    log = LogFile(tmp_path / "log.csv")
    log.on_train_begin()
    with pytest.raises(ValueError, match=r"log\.csv, wh"):
        log.on_epoch_begin(0)


def test_one_process_at_a_time(tmp_path):
    with FolderLock(tmp_path), pytest.raises(ValueError, match=r"which process .* is using"):
        recipes.get("small-cifar10", **TINY).train(images(), tmp_path, verbose=0)


def test_the_settings_of_a_run_reach_its_parts(monkeypatch):
    """The batches get ``on_device``, and the augmentation draws by the seed."""
    recipe, source, given = recipes.get("small-cifar10", **TINY), images(), {}
    batches = source.batches

    def watched(*args, **kwargs):
        given.update(kwargs)
        return batches(*args, **kwargs)

    monkeypatch.setattr(source, "batches", watched)
    recipe.train(source, epochs=0, verbose=0, on_device=True)
    assert given["on_device"] is True

    def states(seed):
        named = recipe.build(16, seed=seed).random_states()
        return [numpy(state).tolist() for name, state in named if "augmenter" in name]

    first = states(0)
    assert first == [numpy(state).tolist() for state in recipe.build_augmenter(0).variables]
    assert all(ours != theirs for ours, theirs in zip(first, states(1), strict=True))


def test_epochs_of_the_schedule_are_counted_in_steps():
    steps = recipes.get("paper-cifar10").build_optimizer(10)
    rates = [float(steps._learning_rate(step)) for step in (1199, 1200, 1599, 1600)]
    np.testing.assert_allclose(rates, [0.03, 0.003, 0.003, 0.0003], rtol=1e-5)
    warm = recipes.get("modern-cifar10").build_optimizer(10)
    rates = [float(warm._learning_rate(step)) for step in (0, 49, 99)]
    np.testing.assert_allclose(rates, [2e-5, 1e-3, 2e-3], rtol=1e-5)


def test_with_fewer_epochs_the_schedule_is_shorter():
    short = recipes.get("paper-cifar10", epochs=20)
    assert short.milestones == (12, 16)
    assert "milestones is (12, 16) instead of (120, 160)." in short.deviations
    assert recipes.get("small-cifar10", epochs=5).warmup_epochs == 1
    assert recipes.get("small-cifar10", epochs=5, warmup_epochs=2).warmup_epochs == 2


def test_the_global_dtype_policy_stays():
    before = keras.config.dtype_policy().name
    model = recipes.get("small-cifar10", width=4).build(16)
    assert keras.config.dtype_policy().name == before
    assert model.encoder.get_layer("conv3").compute_dtype == "bfloat16"
    assert model.memory_bank.rows.dtype == "float32"


def test_images_of_another_size_are_rejected():
    source = ImageArray(np.zeros((4, 16, 16, 3), "uint8"))
    with pytest.raises(ValueError, match=r"images of 16 x 16 pixels\. Expected 32 x 32"):
        recipes.get("small-cifar10").train(source)
