"""Linear classifiers, clusters, few labels, and the report of all measures."""

import csv
import itertools
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import ImageArray, ImageSource
from instdisc_core.encoders import resnet
from instdisc_core.evaluation import (
    cluster,
    clustering_scores,
    evaluate,
    fine_tuned_accuracy,
    knn_accuracy,
    linear,
    linear_accuracy,
    retrieve,
)
from instdisc_core.evaluation import report as report_module
from instdisc_core.evaluation.features import (
    embeddings,
    encoder_features,
    pixels,
    stage_features,
    stage_names,
    unit,
)
from instdisc_core.evaluation.low_shot import labeled_subset


def blobs(n=120, classes=3, spread=0.1, seed=0):
    """Points around one center a class: features and labels."""
    rng = np.random.default_rng(seed)
    centers = np.eye(classes, 8)
    labels = np.arange(n) % classes
    return centers[labels] + spread * rng.standard_normal((n, 8)), labels


def colors(n=24, size=16, seed=0):
    """Images of noise around one of two colors, in two classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    base = np.array([[200, 60, 60], [60, 60, 200]])[labels][:, None, None]
    images = np.clip(base + rng.normal(0, 20, (n, size, size, 3)), 0, 255)
    return ImageArray(images.astype("uint8"), labels, class_names=["red", "blue"])


def build_model(augmenter=None):
    """An untrained model that knows the images of ``colors()``."""
    keras.utils.set_random_seed(0)
    encoder = resnet(10, (16, 16, 3), "cifar", width=4, include_preprocessing=True)
    model = InstanceDiscrimination(
        encoder, 24, 8, NonParametricSoftmax(0.1), augmenter=augmenter, seed=0
    )
    model.compile(optimizer="sgd")
    model.manifest = colors().manifest
    model.build((None, 16, 16, 3))
    return model


@pytest.fixture(scope="module")
def model():
    return build_model()


# -- linear classifiers


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_separable_classes_are_separated_and_noise_is_not(classifier):
    features, labels = blobs()
    test, test_labels = blobs(seed=1)
    assert linear_accuracy(features, labels, test, test_labels, classifier)[0] == 1
    noise, _ = blobs(600, 3, 50.0)
    answers = np.random.default_rng(1).integers(0, 3, 600)
    assert linear_accuracy(noise, np.arange(600) % 3, noise, answers, classifier)[0] < 0.5


def test_the_strength_is_chosen_without_the_test_images():
    """Whatever the test labels say, the same strength is chosen."""
    features, labels = blobs(spread=0.8)
    chosen = {
        linear_accuracy(features, labels, features, np.roll(labels, shift))[1] for shift in (0, 1)
    }
    assert len(chosen) == 1
    assert linear_accuracy(features, labels, features, labels, strengths=(0.5,))[1] == 0.5


def test_test_images_do_not_shape_the_features():
    """Only the training images' mean and variance are used: a shift of the test shows."""
    features, labels = blobs(spread=0.3)
    assert linear_accuracy(features, labels, features, labels)[0] > 0.9
    assert linear_accuracy(features, labels, features + 100, labels)[0] < 0.5


def test_the_last_fit_is_on_all_training_images():
    """One image of class 2: only a classifier that has seen it can answer it."""
    features, labels = blobs(41, 2)
    features = np.concatenate([features, 5 * np.eye(8)[7:]])
    labels = np.append(labels, 2)
    answers = [
        linear_accuracy(features, labels, features[-1:], [2], strengths=(1.0, 2.0), seed=seed)[0]
        for seed in range(16)  # in some of which it is held out first
    ]
    assert answers == [1] * 16


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_the_strength_is_chosen_on_images_that_were_not_fitted(classifier):
    """Some features tell the class; each image has another of its own, which tells it by heart.

    A quarter of the labels is wrong. The classifier with little regularization knows even those,
    but of images that it has not seen it knows no more than the other, which is given first.
    """
    image = np.arange(96)
    truth = image % 2
    labels = np.where(image % 8 < 2, 1 - truth, truth)
    features = np.column_stack([np.tile(2 * truth[:, None] - 1, 20), np.eye(96)])
    arguments = features, labels, features, labels, classifier
    assert linear_accuracy(*arguments, strengths=(1e3,))[0] == 1
    assert linear_accuracy(*arguments, strengths=(1e-3,))[0] == 0.75
    for seed in range(5):
        assert linear_accuracy(*arguments, strengths=(1e-3, 1e3), seed=seed)[1] == 1e-3


def test_the_strength_with_the_best_score_is_taken(monkeypatch):
    scores, fitted = {0.1: 0.2, 1.0: 0.9, 10.0: 0.5}, []

    def fit(classifier, strength, features, labels, seed):
        fitted.append((strength, len(features)))
        return SimpleNamespace(score=lambda features, labels: scores[strength])

    monkeypatch.setattr(linear, "_fitted", fit)
    features, labels = blobs()
    assert linear_accuracy(features, labels, features, labels, strengths=tuple(scores)) == (0.9, 1)
    assert fitted == [(0.1, 96), (1.0, 96), (10.0, 96), (1.0, 120)]


def test_features_of_any_scale():
    features, labels = blobs(spread=0.3)
    scaled = features * np.logspace(-4, 4, 8) + 100
    assert linear_accuracy(scaled, labels, scaled, labels)[0] > 0.95


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_labels": np.zeros(7)}, r"train_features of shape \(120, 8\) and labels"),
        ({"labels": np.zeros((120, 1))}, "features of shape"),
        ({"classifier": "tree"}, "classifier='tree'"),
        ({"train_labels": np.zeros(120)}, "labels of one class"),
    ],
)
def test_linear_arguments_are_checked(change, match):
    features, labels = blobs()
    arguments = {"train_labels": labels, "features": features, "labels": labels, **change}
    with pytest.raises(ValueError, match=match):
        linear_accuracy(features, **arguments)


# -- clusters


def test_blobs_are_found():
    features, labels = blobs()
    scores = clustering_scores(cluster(features, 3), labels)
    assert scores == pytest.approx({"accuracy": 1, "nmi": 1, "ari": 1})


def test_clusters_start_as_often_and_from_the_seed_that_were_asked_for(monkeypatch):
    made = []

    def fit_predict(self, rows):
        made.append((self.n_clusters, self.n_init, self.random_state))

    monkeypatch.setattr(KMeans, "fit_predict", fit_predict)
    features, _ = blobs()
    cluster(features, 3)
    cluster(features, 2, seed=5, restarts=4)
    assert made == [(3, 10, 0), (2, 4, 5)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_accuracy_is_that_of_the_best_matching(pairs):
    clusters, labels = map(np.array, zip(*pairs, strict=True))
    best = max(
        np.mean(np.array(naming)[clusters] == labels) for naming in itertools.permutations(range(4))
    )
    assert clustering_scores(clusters, labels)["accuracy"] == pytest.approx(best)
    renamed = clustering_scores(3 - clusters, labels)
    assert renamed == pytest.approx(clustering_scores(clusters, labels), abs=1e-9)


def test_clusters_are_checked():
    with pytest.raises(ValueError, match=r"num_clusters=5. Expected at most the 3"):
        cluster(np.eye(3), 5)
    with pytest.raises(ValueError, match="one of each for every image"):
        clustering_scores([0, 1], [0])


# -- features


def test_stage_features_are_the_averaged_maps(model):
    source = colors()
    assert stage_names(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    layer = keras.Model(model.encoder.input, model.encoder.get_layer("conv2").output)
    maps = numpy(layer(source.images().astype("float32")))  # 16 x 16 x 4
    whole = stage_features(model, source, "conv2", max_features=1024)
    np.testing.assert_allclose(whole, maps.reshape(24, -1), rtol=1e-4, atol=1e-5)
    quarters = maps.reshape(24, 4, 4, 4, 4, 4).mean(axis=(2, 4))
    pooled = stage_features(model, source, "conv2", max_features=64)
    np.testing.assert_allclose(pooled, quarters.reshape(24, -1), rtol=1e-4, atol=1e-5)
    uneven = stage_features(model, source, "conv2", max_features=4 * 9)  # squares of 6 out of 16
    np.testing.assert_allclose(
        uneven[:, -4:], maps[:, 11:, 11:].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"stage='conv9'\. Expected the name of one of"):
        stage_features(model, source, "conv9")
    with pytest.raises(ValueError, match="max_features=3"):
        stage_features(model, source, "conv2", max_features=3)


def test_encoder_features_and_pixels(model):
    source = colors()
    expected = numpy(model.encoder(source.images().astype("float32"), training=False))
    np.testing.assert_allclose(encoder_features(model, source, 7), expected, rtol=1e-4, atol=1e-5)
    rows, mean = pixels(source)
    flat = source.images().reshape(24, -1).astype("float64")
    centered = flat - flat.mean(axis=0)
    expected = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5)
    assert np.array_equal(unit(np.zeros((1, 3))), np.zeros((1, 3)))


# -- few labels


@given(st.integers(1, 40), st.sampled_from([0.01, 0.1, 0.25, 1.0]), st.integers(0, 3))
def test_every_class_gets_its_share_and_less_is_a_part_of_more(each, fraction, seed):
    labels = np.repeat([3, 5, 9], each)
    chosen = labeled_subset(labels, fraction, seed)
    counts = np.unique(labels[chosen], return_counts=True)[1]
    assert counts.tolist() == [max(1, round(fraction * each))] * 3
    assert set(labeled_subset(labels, fraction / 2, seed)) <= set(chosen)


def test_fine_tuning_learns_and_leaves_the_model_as_it_was(model):
    before = [numpy(w) for w in model.variables]
    accuracy = fine_tuned_accuracy(
        model, colors(), colors(seed=1), 0.5, epochs=12, learning_rate=0.05, batch_size=4
    )
    assert accuracy > 0.9
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, numpy(new))


def test_fine_tuning_augments_and_trains_in_training_mode(monkeypatch):
    calls, seen = [], []

    class Watch(keras.layers.Layer):
        def call(self, images, training=False):
            calls.append(training)
            return images

    model = build_model(Watch())
    moving = [w for w in model.encoder.weights if "moving_mean" in w.path]
    set_weights = model.encoder.set_weights

    def watched(weights):
        seen.append([numpy(w) for w in moving])
        set_weights(weights)

    monkeypatch.setattr(type(model.encoder), "set_weights", lambda self, weights: watched(weights))
    calls.clear()
    fine_tuned_accuracy(model, colors(), colors(seed=1), 0.5, epochs=1)
    assert calls
    assert all(calls)
    assert np.abs(seen[0][0]).max() > 0, "batch normalization followed the batches"


def test_fine_tuning_puts_the_random_states_back_and_has_an_order_for_each_epoch(monkeypatch):
    model, made, batches = build_model(keras.layers.RandomFlip(seed=3)), [], ImageArray.batches

    def watched(self, *args, **kwargs):
        made.append(batches(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(ImageSource, "batches", watched)
    model.augmenter(colors().images(), training=True)
    before = [state.numpy() for _, state in model.random_states()]
    assert before
    fine_tuned_accuracy(model, colors(), colors(seed=1), 0.25, epochs=3, batch_size=5, seed=7)
    for value, (_, state) in zip(before, model.random_states(), strict=True):
        np.testing.assert_array_equal(state.numpy(), value)
    model.augmenter(colors().images(), training=True)
    after = [state.numpy() for _, state in model.random_states()]
    assert any(np.any(a != b) for a, b in zip(after, before, strict=True)), "or nothing was shown"
    (order,) = made
    assert (order.epoch, order.batch_size, order.seed) == (2, 5, 7)
    assert len(order.source) == 6


def test_fine_tuning_needs_labels_that_match(model):
    bare = ImageArray(colors().images())
    with pytest.raises(ValueError, match=r"labels for test only\. Expected both or none"):
        fine_tuned_accuracy(model, bare, colors(), 0.5)
    other = ImageArray(
        colors().images(), np.arange(24), class_names=list("abcdefghijklmnopqrstuvwx")
    )
    with pytest.raises(ValueError, match=r"test labels \['a', 'b'"):
        fine_tuned_accuracy(model, colors(), other, 0.5)


# -- what is not finite


def test_embeddings_that_are_not_finite_have_no_clusters_and_no_classifier():
    rows, answers = np.eye(9), np.arange(9) % 2
    wrong = rows.copy()
    wrong[[2, 4], 0] = np.nan, np.inf
    for arguments in ((wrong, answers, rows, answers), (rows, answers, wrong, answers)):
        with pytest.raises(ValueError, match=r"features in which 2 of 9 rows .* finite: 2, 4\."):
            linear_accuracy(*arguments)
    with pytest.raises(ValueError, match=r"embeddings in which 2 of 9 rows .* finite: 2, 4\."):
        cluster(wrong, 2)


def test_a_model_that_diverged_is_not_evaluated():
    model = build_model()
    model.projector.set_weights([np.full_like(w, np.nan) for w in model.projector.get_weights()])
    with pytest.raises(ValueError, match=r"embeddings in which 24 of 24 rows are not finite"):
        evaluate(model, colors(), colors(seed=1), measures=["knn"])
    model.encoder.set_weights([np.full_like(w, np.nan) for w in model.encoder.get_weights()])
    for compute in (encoder_features, lambda *a: stage_features(*a, "conv1")):
        with pytest.raises(ValueError, match=r"features in which 24 of 24 rows are not finite"):
            compute(model, colors())


# -- the report


def test_one_call_measures_everything(model, tmp_path):
    train, test = colors(), colors(seed=1)
    report = evaluate(model, train, test, tmp_path, low_shot=(0.5,), low_shot_epochs=2)
    assert report.about["trained_on_train"]
    rows = {(row["measure"], row["features"]): row["value"] for row in report.rows}
    expected = {
        *((m, f) for m in ("kNN", "1-NN") for f in ("bank rows", "embedding", "encoder", "pixels")),
        *(("linear, logistic", f) for f in ("embedding", "conv1", "conv3", "conv5")),
        *((f"clustering {m}", "embedding") for m in ("accuracy", "nmi", "ari")),
        ("linear, svm", "embedding"),
        ("fine-tuned, 50% of labels", "encoder"),
    }
    assert expected <= set(rows)
    assert rows["1-NN", "pixels"] == 1, "two colors are easy"
    assert all(-1 <= value <= 1 for value in rows.values())
    assert report.value("1-NN", "pixels") == 1
    with pytest.raises(ValueError, match=r"'2-NN' of 'pixels'\. Expected one of 'kNN' of"):
        report.value("2-NN", "pixels")

    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["rows"] == report.rows
    with open(tmp_path / "report.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["value"]) for line in lines] == [row["value"] for row in report.rows]
    text = (tmp_path / "report.txt").read_text()
    assert str(report) in text
    assert len(text.splitlines()) == len(report.rows) + 1
    assert len(report.pictures) == 4
    for path in report.pictures:
        assert path.stat().st_size > 1000


def test_images_on_both_sides_are_counted_and_named(model, monkeypatch):
    monkeypatch.setattr(report_module.of, "embeddings", lambda _, source: blobs(len(source))[0])
    settings = {"measures": ["clustering"], "num_clusters": 2}
    for test, count in ((colors(), 24), (colors().subset([3, 5]), 2)):
        with pytest.warns(UserWarning, match=f"{count} of {len(test)} are also training images"):
            report = evaluate(model, colors(), test, **settings)
        assert report.about["test_images_in_train"] == count
    report = evaluate(model, colors(), colors(seed=1), **settings)
    assert report.about["test_images_in_train"] == 0


def test_on_other_images_nothing_is_said_of_the_bank(model):
    report = evaluate(model, colors(seed=2), colors(seed=1), measures=["knn"])
    assert not report.about["trained_on_train"]
    assert "bank rows" not in {row["features"] for row in report.rows}


def test_classes_are_compared_by_name(model):
    """The test folder lacks a class, so it numbers those after it otherwise."""
    images = np.zeros((24, 16, 16, 3), "uint8")
    images[np.arange(24), :, :, np.repeat([0, 1, 2], 8)] = 200  # red, green, blue
    train = ImageArray(images, np.repeat(["ant", "bee", "cat"], 8))
    test = ImageArray(images[[0, 1, 16, 17]] // 4 * 3, ["ant", "ant", "cat", "cat"])
    report = evaluate(model, train, test, measures=["knn"], k=2)
    assert report.value("kNN", "pixels") == 1
    assert report.value("1-NN", "pixels") == 1
    rows = np.eye(24, dtype="float32")
    found = retrieve(rows[[0, 1, 16, 17]], test, rows, train, k=1)
    assert found.agreement.tolist() == [1, 1, 1, 1]
    assert {row["settings"]["k"] for row in report.rows} == {1, 2}


def test_pixels_of_the_test_are_centered_by_the_training_mean(model):
    """Dark test images: by their own mean they would look like anything."""
    values = np.repeat(np.uint8([60, 200]), 12)
    images = np.ones((24, 16, 16, 3), "uint8") * values[:, None, None, None]
    train = ImageArray(images, np.repeat([0, 1], 12))
    test = ImageArray(np.full((4, 16, 16, 3), 70, "uint8"), [0] * 4)
    assert evaluate(model, train, test, measures=["knn"], k=5).value("kNN", "pixels") == 1


def test_each_row_is_of_the_features_that_it_names():
    """Red or green is what the encoder sees; blue, which misleads, is all that the head leaves."""
    train_labels, test_labels = np.arange(24) % 2, np.arange(8) % 2

    def pictures(labels, blue):
        images = np.zeros((len(labels), 4, 4, 3), "uint8")
        images[np.arange(len(labels)), :, :, labels] = 240
        images[..., 2] = np.where(blue, 60, 0)[:, None, None]
        return ImageArray(images, labels)

    train, test = pictures(train_labels, train_labels), pictures(test_labels, 1 - test_labels)
    encoder = keras.Sequential([keras.layers.GlobalAveragePooling2D()])
    model = InstanceDiscrimination(encoder, 24, 2, projector=keras.layers.Dense(2))
    model.build((None, 4, 4, 3))
    model.projector.set_weights([np.array([[0, 0], [0, 0], [1, 0]]), np.array([0, 30])])
    shown = model.predict(pictures(train_labels, 1 - train_labels).images(), verbose=0)
    model.memory_bank.rows.assign(shown)  # as if blue had said the contrary then
    model.manifest = train.manifest
    report = evaluate(model, train, test, measures=["knn"], k=3)
    values = {row["features"]: row["value"] for row in report.rows if row["measure"] == "kNN"}
    assert values == {"embedding": 0, "encoder": 1, "pixels": 1, "bank rows": 1}
    model.manifest = None
    assert len(evaluate(model, train, test, measures=["knn"]).rows) == 2 * 3


def test_settings_reach_the_measures(model, monkeypatch):
    votes = []

    def counted(*args, **kwargs):
        votes.append(kwargs)
        return knn_accuracy(*args, **kwargs)

    monkeypatch.setattr(report_module, "knn_accuracy", counted)
    settings = {"k": 7, "temperature": 0.5, "num_clusters": 1}
    report = evaluate(model, colors(), colors(seed=1), measures=["knn", "clustering"], **settings)
    assert votes == 4 * [{"k": 7, "temperature": 0.5}, {"k": 1, "temperature": 0.5}]
    assert [row["settings"] for row in report.rows[:8]] == votes
    assert report.value("clustering accuracy", "embedding") == 0.5, "one cluster for two classes"


def test_few_images_have_few_neighbors(model, tmp_path):
    """Four images have three neighbors each, also when they come as a second object."""
    for test in (colors(4), colors(8).subset([1, 3])):
        pictures = evaluate(model, colors(4), test, tmp_path, measures=["retrieval"]).pictures
        page = pictures[-1].read_text(encoding="utf-8")
        assert page.count("<img") == 4 * len(test)


def test_without_labels_there_are_pictures(model, tmp_path):
    train, test = (ImageArray(colors(seed=s).images()) for s in (0, 1))
    report = evaluate(model, train, test, tmp_path, measures=["knn", "retrieval"])
    assert report.rows == []
    assert len(report.pictures) == 3


def test_a_report_s_arguments_are_checked(model):
    bare = ImageArray(colors().images())
    with pytest.raises(ValueError, match=r"measures \['magic'\]"):
        evaluate(model, colors(), colors(), measures=["magic"])
    with pytest.raises(ValueError, match=r"labels for train only\. Expected both or none"):
        evaluate(model, colors(), bare)
    with pytest.raises(ValueError, match=r"test labels \['a', 'b'"):
        evaluate(
            model,
            colors(),
            ImageArray(
                colors().images(), np.arange(24), class_names=list("abcdefghijklmnopqrstuvwx")
            ),
        )


def test_embeddings_are_those_of_predict(model):
    source = colors()
    np.testing.assert_allclose(
        embeddings(model, source, 7), model.predict(source.images(), verbose=0), atol=1e-4
    )
