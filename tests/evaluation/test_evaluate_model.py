"""All measures in one call."""

import csv
import json

import keras
import numpy as np
import pytest
from problems import blobs, build_model, colors, page_data

from instdisc_core import InstanceDiscrimination
from instdisc_core.data import ImageArray
from instdisc_core.encoders import STAGES
from instdisc_core.evaluation import evaluate, evaluate_model, knn_accuracy, measures, retrieve
from instdisc_core.evaluation.features import encoder_features, stage_features

pytestmark = pytest.mark.usefixtures("uncompiled")
COMPARED = "bank rows", "embedding", "encoder", "encoder, whitened", "pixels"


def test_a_model_that_diverged_is_not_evaluated():
    model = build_model()
    model.projector.set_weights([np.full_like(w, np.nan) for w in model.projector.get_weights()])
    with pytest.raises(ValueError, match=r"embeddings in which 24 of 24 rows are not finite"):
        evaluate(model, colors(), colors(seed=1), measures=["knn"])
    model.encoder.set_weights([np.full_like(w, np.nan) for w in model.encoder.get_weights()])
    for compute in (encoder_features, lambda *a: stage_features(*a, "conv1")):
        with pytest.raises(ValueError, match=r"features in which 24 of 24 rows are not finite"):
            compute(model, colors())


def test_one_call_adds_a_row_for_each_measure_and_writes_every_file(model, tmp_path):
    train, test = colors(), colors(4, seed=1)  # few queries: pictures of many take seconds
    report = evaluate(model, train, test, tmp_path, low_shot=(0.5,), low_shot_epochs=2)
    assert report.about["trained_on_train"]
    rows = {(row["measure"], row["features"]): row["value"] for row in report.rows}
    expected = {
        *((m, f) for m in ("kNN", "1-NN") for f in COMPARED),
        *(("linear, logistic", f) for f in ("embedding", *STAGES)),
        *(
            (f"clustering {m}", f)
            for m in ("accuracy", "nmi", "ari")
            for f in ("embedding", "bank rows")
        ),
        *(
            (m, f)
            for m in ("altered copy", "warped copy", "verdict")
            for f in ("pixels", "untrained encoder", "embedding")
        ),
        ("linear, svm", "embedding"),
        ("fine-tuned, 50% of labels", "encoder"),
    }
    assert expected == set(rows)
    assert rows["1-NN", "pixels"] == 1, "two colors are easy"
    assert all(-1 <= value <= 1 for value in rows.values())

    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["rows"] == report.rows
    with open(tmp_path / "report.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["value"]) for line in lines] == [row["value"] for row in report.rows]
    text = (tmp_path / "report.txt").read_text()
    assert str(report) in text
    assert len(text.splitlines()) == len(report.rows) + 2, "a header, and the verdict in words"
    assert len(report.pictures) == 5
    assert report.pictures[-1].name == "verdict.png"
    for path in report.pictures:
        assert path.stat().st_size > 1000


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.on_one_backend
def test_images_on_both_sides_are_counted_and_named(model, monkeypatch):
    monkeypatch.setattr(evaluate_model, "embeddings", lambda _, source: blobs(len(source))[0])
    settings = {"measures": ["clustering"], "num_clusters": 2}
    for test, count in ((colors(), 24), (colors().subset([3, 5]), 2)):
        with pytest.warns(UserWarning, match=f"{count} of {len(test)} are also training images"):
            report = evaluate(model, colors(), test, **settings)
        assert report.about["test_images_in_train"] == count
    report = evaluate(model, colors(), colors(seed=1), **settings)
    assert report.about["test_images_in_train"] == 0


@pytest.mark.on_one_backend
def test_on_other_images_the_bank_is_not_measured(model):
    report = evaluate(model, colors(seed=2), colors(seed=1), measures=["knn"])
    assert not report.about["trained_on_train"]
    assert "bank rows" not in {row["features"] for row in report.rows}


@pytest.mark.on_one_backend
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


@pytest.mark.on_one_backend
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
    assert values == {**dict.fromkeys(COMPARED, 1), "embedding": 0}
    model.manifest = None
    assert len(evaluate(model, train, test, measures=["knn"]).rows) == 2 * (len(COMPARED) - 1)


@pytest.mark.on_one_backend
def test_k_temperature_and_number_of_clusters_reach_the_measures(model, monkeypatch):
    votes, backends = [], []

    def counted(*args, **kwargs):
        votes.append({name: kwargs[name] for name in ("k", "temperature")})
        backends.append(kwargs["backend"])
        return knn_accuracy(*args, **kwargs)

    monkeypatch.setattr(measures, "knn_accuracy", counted)
    settings = {"k": 7, "temperature": 0.5, "num_clusters": 1}
    report = evaluate(model, colors(), colors(seed=1), measures=["knn", "clustering"], **settings)
    assert votes == len(COMPARED) * [{"k": 7, "temperature": 0.5}, {"k": 1, "temperature": 0.5}]
    assert [row["settings"] for row in report.rows[:10]] == votes
    assert backends == 2 * [model.memory_bank.bank_ops] + 8 * [None], "the bank's, for its rows"
    for features, images in (("embedding", "test"), ("bank rows", "train")):
        row = report.row("clustering accuracy", features)
        assert row["value"] == 0.5, "one cluster for two classes"
        assert row["settings"] == {"images": images}


@pytest.mark.on_one_backend
def test_few_images_have_few_neighbors(model, tmp_path):
    """Four images have three neighbors each, also when they come as a second object."""
    for test in (colors(4), colors(8).subset([1, 3])):
        pictures = evaluate(model, colors(4), test, tmp_path, measures=["retrieval"]).pictures
        rows = page_data(pictures[-1])["rows"]
        assert [len(neighbors) for _, neighbors, _ in rows] == [3] * len(test)


@pytest.mark.on_one_backend
def test_one_test_image_of_two_classes_is_one_cluster(model):
    report = evaluate(model, colors(), colors(seed=1).subset([3]), measures=["clustering"])
    assert report.row("clustering accuracy", "embedding")["value"] == 1
    assert report.row("clustering accuracy", "bank rows")["value"] <= 1


@pytest.mark.on_one_backend
def test_without_labels_there_are_the_verdict_and_pictures(model, tmp_path):
    train, test = (ImageArray(colors(4, seed=s).images()) for s in (0, 1))
    report = evaluate(model, train, test, tmp_path, measures=["knn", "retrieval"])
    assert report.rows == []
    assert len(report.pictures) == 3
    report = evaluate(model, train, test, measures=["knn", "verdict"])
    assert {row["measure"] for row in report.rows} == {"altered copy", "warped copy", "verdict"}


@pytest.mark.on_one_backend
def test_unknown_measures_and_labels_that_do_not_match_are_rejected(model):
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
