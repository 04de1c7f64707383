"""Recipes: every setting reaches the model, and a run can be repeated and resumed."""

import dataclasses
import json
import sys
from zipfile import ZipFile

import keras
import numpy as np
import pytest
from differentiation import numpy

from instdisc_core import (
    NCE,
    NNCLR,
    PIC,
    InstanceDiscrimination,
    NonParametricSoftmax,
    recipes,
)
from instdisc_core.callbacks import read_log
from instdisc_core.checkpoints import FolderLock
from instdisc_core.data import ImageArray, SlidingWindow
from instdisc_core.recipes import named
from instdisc_core.recipes.building import (
    build_augmenter,
    build_learning_rate,
    build_model,
    build_objective,
    build_optimizer,
)
from instdisc_core.recipes.run_folder import claim

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


def test_the_type_of_a_name_lists_all_recipes():
    assert recipes.names() == [recipe.name for recipe in named._RECIPES]


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
    objective = build_objective(imagenet)
    assert (objective.num_negatives, objective.proximal_weight) == (4096, 30.0)
    assert isinstance(build_objective(cifar), NonParametricSoftmax)
    assert isinstance(build_objective(recipes.get("lemniscate-cifar10")), NCE)


def test_the_settings_of_idfd():
    """Tao, Takagi and Nakata, section 4; whole batches alone, since 80 columns are too short."""
    recipe = recipes.get("idfd-cifar10")
    terms = build_objective(recipe).terms
    assert [(weight, term.temperature) for weight, term in terms] == [(1.0, 1.0), (1.0, 2.0)]
    assert (recipe.batch_size, recipe.embedding_dim, recipe.momentum) == (128, 128, 0.5)
    found = rates(recipe, 1, (0, 599, 600, 950, 1300, 1650, 1999))[:, 0]
    expected = 0.03 / 10.0 ** np.array([0, 0, 1, 2, 3, 4, 4])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert recipe.drop_remainder


def test_the_settings_of_nnclr():
    """Dwibedi et al., section 4.1: heads, temperature and support set of the published run."""
    recipe = recipes.get("nnclr-imagenet")
    assert (recipe.projector, recipe.predictor) == ((2048, 2048), (4096,))
    assert (recipe.embedding_dim, recipe.temperature, recipe.epochs) == (256, 0.1, 1000)
    assert dict(recipe.objective_settings) == {"support_set": 98_304}
    assert dict(recipes.get("nnclr-cifar10").objective_settings)["support_set"] < 50_000
    assert (recipe.learning_rate, recipe.batch_size) == (0.1, 512)


@pytest.mark.usefixtures("uncompiled")
def test_an_nnclr_recipe_trains_an_nnclr_model():
    small = {"stem": "patch", "depth": 10, "projector": (6,), "predictor": (5,)}
    pairs = (("support_set", 12), ("top_k", 2), ("enqueue", "both"))
    recipe = recipes.get(
        "nnclr-cifar10", **{**TINY, **small}, temperature=0.3, objective_settings=pairs
    )
    source = images(20)
    model = recipe.train(source, epochs=1, verbose=0)
    assert isinstance(model, NNCLR)
    assert (model.support_set.shape, model.temperature) == ((12, 8), 0.3)
    assert (model.top_k, model.enqueue) == (2, "both")
    widths = [
        [layer.units for layer in head.layers if hasattr(layer, "units")]
        for head in (model.projector, model.predictor)
    ]
    assert widths == [[6, 8], [5, 8]]
    assert int(numpy(model.optimizer.iterations)) == 2, "the last 4 images do not fill a batch"
    assert model.manifest.fingerprint == source.manifest.fingerprint


def test_the_settings_of_pic():
    """The official code; the window holds 8 strides, and twice as many images as negatives."""
    recipe = recipes.get("pic-imagenet")
    assert (recipe.temperature, recipe.batch_size, recipe.learning_rate) == (0.2, 256, 0.03)
    assert (recipe.weight_decay, recipe.optimizer_momentum, recipe.epochs) == (1e-4, 0.9, 200)
    assert (recipe.sliding_window, recipe.projector) == ((131_072, 16_384), (2048,))
    assert dict(recipe.objective_settings) == {"recent_negatives": 65_536}
    assert recipes.get("pic-cifar10").sliding_window[0] < 50_000


@pytest.mark.usefixtures("uncompiled")
def test_a_pic_recipe_trains_a_pic_model():
    small = {"stem": "patch", "depth": 10, "projector": (6,), "sliding_window": (12, 4)}
    pairs = (("recent_negatives", 9), ("rate_factor", 0.5))
    recipe = recipes.get(
        "pic-cifar10", **{**TINY, **small}, weight_decay=0.01, objective_settings=pairs
    )
    source = images(20)
    model = recipe.train(source, epochs=2, verbose=0)
    assert isinstance(model, PIC)
    weights = model.class_weights
    assert (weights.shape, weights.weight_decay, weights.momentum) == ((20, 8), 0.01, 0.9)
    assert (model.temperature, model.recent.shape, model.rate_factor) == (0.2, (9,), 0.5)
    seen = SlidingWindow(12, 4).order(20, 0, 0, 32)  # two epochs of two batches of 8
    last = list(dict.fromkeys([*seen[24:], *seen[16:24], *seen[8:16], *seen[:8]]))
    assert numpy(model.recent).tolist() == last[:9]
    with pytest.raises(ValueError, match="a window of at most all images"):
        recipe.train(images(11), verbose=0)


@pytest.mark.on_one_backend
def test_the_weight_decay_of_adamw_is_not_an_l2_term_of_class_weights():
    changes = {**TINY, "stem": "patch", "depth": 10, "projector": (6,), "weight_decay": 0.1}
    for optimizer, of_rows in (("adamw", 0.0), ("sgd", 0.1)):
        recipe = recipes.get("pic-cifar10", **changes, optimizer=optimizer)
        assert build_model(recipe, 20).class_weights.weight_decay == of_rows
    assert build_optimizer(recipes.get("pic-cifar10", optimizer="adamw"), 3).weight_decay > 0


@pytest.mark.on_one_backend
def test_a_recipe_may_have_a_projector_of_several_layers():
    model = recipes.get("small-cifar10", **TINY, projector=(6,)).build(16, seed=0)
    assert isinstance(model, InstanceDiscrimination)
    assert [layer.units for layer in model.projector.layers if hasattr(layer, "units")] == [6, 8]
    assert type(model.projector.layers[-1]).__name__ == "Dense", "no batch normalization at the end"


@pytest.mark.on_one_backend
def test_the_steps_of_an_epoch_are_those_that_are_trained():
    """The learning rate falls to 0 in the last step, with and without the images that are left."""
    for drop, steps in ((False, 3), (True, 2)):
        recipe = recipes.get("modern-cifar10", **TINY, warmup_epochs=0, drop_remainder=drop)
        model = dataclasses.replace(recipe, stem="patch", depth=10).build(20, seed=0)
        schedule = model.optimizer._learning_rate
        assert float(schedule(3 * steps)) == pytest.approx(0, abs=1e-9)
        assert float(schedule(3 * steps - 1)) > 1e-5


def test_a_change_is_a_deviation():
    recipe = recipes.get("paper-cifar10", epochs=20, momentum=0.5)
    assert recipe.epochs == 20
    assert recipe.deviations[-1] == "epochs is 20 instead of 200."
    with pytest.raises(ValueError, match="settings epoch that a recipe does not have"):
        recipes.get("paper-cifar10", epoch=20)
    with pytest.raises(ValueError, match=r"recipe='paper'\. Expected one of 'paper-cifar10'"):
        recipes.get("paper")


def test_the_settings_reach_the_model():
    recipe = recipes.get(
        "small-cifar10",
        **TINY,
        momentum=0.25,
        objective="nce",
        objective_settings=(("num_negatives", 5), ("proximal_weight", 2.0)),
        temperature=0.3,
        views=2,
    )
    model = recipe.build(20, seed=0)
    assert model.views == 2
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


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("optimizer", "adam", r"optimizer='adam'\. Expected one of 'sgd', 'adamw'"),
        ("augmentation", "none", r"augmentation='none'\. Expected one of 'paper', 'simclr'"),
        ("stem", "cifar10", r"stem='cifar10'\. Expected one of 'imagenet', 'cifar', 'patch'"),
        ("depth", 20, r"depth=20\. Expected one of 10, 18"),
        ("objective", "NCE", r"objective='NCE'\. Expected one of 'nce'"),
        ("dtype_policy", "float16", r"dtype_policy='float16'\. Expected one of 'float32'"),
        ("objective", "nnclr", r"objective='nnclr', views=1 and predictor=\(\)\. Expected two"),
        ("sliding_window", (6, 4), "window=6 and stride=4"),
        ("predictor", (5,), r"predictor=\(5,\) and objective='non.*Expected .*Set predictor=\(\)"),
        ("warmup_epochs", 5, r"warmup_epochs=5 and milestones=\(120, 160\)\. Expected a warm-up,"),
    ],
)
def test_a_value_that_a_recipe_does_not_take_is_named(setting, value, message):
    with pytest.raises(ValueError, match=message):
        recipes.get("paper-cifar10", **{setting: value})


# -- the learning rate


def rates(recipe, steps_per_epoch, epochs):
    """The learning rate at the first and at the last step of each of these epochs."""
    rate = build_learning_rate(recipe, steps_per_epoch)
    steps = [(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1) for epoch in epochs]
    return np.array([[float(rate(step)) for step in pair] for pair in steps])


@pytest.mark.on_one_backend
@pytest.mark.parametrize("name", ["paper-cifar10", "lemniscate-cifar10", "paper-imagenet"])
def test_the_learning_rate_of_each_epoch_is_the_paper_s(name):
    """Wu et al., section 4: 0.03, and a tenth of it at epochs 120 and 160, of 200."""
    recipe = recipes.get(name)
    expected = np.repeat([0.03, 0.003, 0.0003], [120, 40, 40])
    found = rates(recipe, 7, range(recipe.epochs))
    np.testing.assert_allclose(found, np.stack([expected, expected], axis=1), rtol=1e-6)


def test_milestones_may_be_in_any_order_and_at_one_epoch():
    recipe = recipes.get("paper-cifar10", milestones=(3, 1, 3))
    expected = np.array([1, 0.1, 0.1, 0.001, 0.001]) * 0.03
    np.testing.assert_allclose(rates(recipe, 2, range(5))[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["modern-cifar10", pytest.param("small-cifar10", marks=pytest.mark.on_one_backend)]
)
def test_a_warm_up_and_then_a_cosine_to_0(name):
    recipe, steps = recipes.get(name), 5
    rate = build_learning_rate(recipe, steps)
    warm, end = recipe.warmup_epochs * steps, recipe.epochs * steps
    for step, share in ((0, 1 / warm), (warm, 1), ((warm + end) / 2, 0.5), (end, 0), (2 * end, 0)):
        assert float(rate(step)) == pytest.approx(share * 2e-3, rel=1e-5, abs=1e-9), step
    rising = np.diff([float(rate(step)) for step in range(0, warm + 1, warm // 5)])
    np.testing.assert_allclose(rising, rising[0], rtol=1e-3, err_msg="it rises linearly")
    falling = np.diff([float(rate(step)) for step in np.linspace(warm, end, 9)])
    assert rising[0] > 0 > falling.max()


def test_a_cosine_without_a_warm_up_starts_at_its_highest():
    recipe = recipes.get("small-cifar10", warmup_epochs=0, epochs=4)
    rate = build_learning_rate(recipe, 2)
    np.testing.assert_allclose([float(rate(s)) for s in (0, 4, 8)], [2e-3, 1e-3, 0], atol=1e-9)


def test_weight_decay_is_as_strong_as_pytorch_s():
    """A constant weight, no gradient: PyTorch's L2 term runs through the momentum."""
    recipe = recipes.get("paper-cifar10", milestones=(), epochs=10_000)
    optimizer = build_optimizer(recipe, steps_per_epoch=100)
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


@pytest.mark.usefixtures("uncompiled")
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
    with ZipFile(tmp_path / "model.keras") as saved:
        assert b"instdisc_core.recipes" not in saved.read("config.json"), "needed to load it"
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))
        assert np.all(np.isfinite(numpy(ours)))

    run = json.loads((tmp_path / "recipe.json").read_text())
    assert run["recipe"] == recipe.to_dict()
    assert run["data"] == source.manifest.fingerprint
    assert [row["epoch"] for row in read_log(tmp_path / "log.csv")] == ["0", "1", "2"]
    for other, what in ((images(seed=1), "data"), (source, "seed")):
        with pytest.raises(ValueError, match=f"holds another run: its {what} differs"):
            recipe.train(other, tmp_path, seed=1 if what == "seed" else 0, verbose=0)
    changed = dataclasses.replace(recipe, temperature=0.5, learning_rate=1.0)
    with pytest.raises(ValueError, match=r"its recipe \(learning_rate, temperature\) differs"):
        changed.train(source, tmp_path, seed=0, verbose=0)
    assert json.loads((tmp_path / "recipe.json").read_text()) == run


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.on_one_backend
def test_without_pillow_the_verdict_alone_is_left_out(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    recipe = recipes.get("small-cifar10", **TINY)
    with pytest.warns(UserWarning, match="verdict is left out, because Pillow is not installed"):
        recipe.train(images(), tmp_path, epochs=1, verbose=0)
    assert (tmp_path / "model.keras").exists()
    assert not list(tmp_path.glob("verdict*"))


@pytest.mark.on_one_backend
def test_a_record_of_another_version_is_named(tmp_path):
    settings = recipes.get("small-cifar10").to_dict()
    added = settings | {"color": "blue"}
    lacking = {name: value for name, value in settings.items() if name != "depth"}
    for odd, which in ((added, "color"), (lacking, "depth")):
        (tmp_path / "recipe.json").write_text(json.dumps({"recipe": odd}))
        with pytest.raises(ValueError, match=f"lacks or adds {which}.*of another version"):
            recipes.for_images(images(), output=tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": settings}))
    assert recipes.for_images(images(), output=tmp_path) == recipes.get("small-cifar10")


@pytest.mark.on_one_backend
@pytest.mark.parametrize("text", ["", "[]", '{"recipe": ', "[" * 9_000, "7"])
def test_a_damaged_record_of_the_run_is_named(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"recipe\.json, which is damaged|holds another run"):
        claim(tmp_path, recipes.get("small-cifar10"), 0, images().manifest)
    assert (tmp_path / "recipe.json").read_text() == text


@pytest.mark.on_one_backend
def test_one_process_at_a_time(tmp_path):
    with FolderLock(tmp_path), pytest.raises(ValueError, match=r"which process .* is using"):
        recipes.get("small-cifar10", **TINY).train(images(), tmp_path, verbose=0)
    assert not (tmp_path / "recipe.json").exists(), "who does not hold the folder writes nothing"


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.on_one_backend
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
    assert first == [numpy(state).tolist() for state in build_augmenter(recipe, 0).variables]
    assert all(ours != theirs for ours, theirs in zip(first, states(1), strict=True))


def test_with_fewer_epochs_warm_up_and_milestones_are_earlier():
    short = recipes.get("paper-cifar10", epochs=20)
    assert short.milestones == (12, 16)
    assert "milestones is (12, 16) instead of (120, 160)." in short.deviations
    assert recipes.get("idfd-cifar10", epochs=1).milestones == (1, 1, 1, 1)  # not from the start
    assert recipes.get("small-cifar10", epochs=5).warmup_epochs == 1
    assert recipes.get("small-cifar10", epochs=5, warmup_epochs=2).warmup_epochs == 2


@pytest.mark.on_one_backend
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
