"""The settings of each measure."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from problems import blobs, colors

from instdisc_core.evaluation import LinearAccuracy, Report, evaluate, evaluate_model, measures
from instdisc_core.evaluation import report_pictures as pictures

pytestmark = pytest.mark.framework_independent


def watch(monkeypatch, module, name, result):
    """The arguments by name of each call of a function, which returns ``result`` instead."""
    bind, calls = inspect.signature(getattr(module, name)).bind, []

    def call(*args, **kwargs):
        calls.append(bind(*args, **kwargs).arguments)
        return result

    monkeypatch.setattr(module, name, call)
    return calls


def test_seed_shares_and_epochs_reach_every_measure(monkeypatch, tmp_path):
    train, test = colors(), colors(seed=1)
    monkeypatch.setattr(evaluate_model, "embeddings", lambda _, source: blobs(len(source))[0])
    monkeypatch.setattr(measures, "stage_names", lambda _: ["conv3"])
    stage = watch(monkeypatch, measures, "stage_features", np.ones((24, 5)))
    linear = watch(monkeypatch, measures, "linear_accuracy", LinearAccuracy(0.5, 0.1))
    clusters = watch(monkeypatch, measures, "cluster", test.labels)
    tuned = watch(monkeypatch, measures, "fine_tuned_accuracy", 0.75)
    tsne = watch(monkeypatch, pictures, "plot_tsne", None)
    names = ["linear", "stages", "clustering", "low_shot", "tsne"]
    settings = {"low_shot": (0.1, 0.5), "low_shot_epochs": 7, "seed": 3}
    model = SimpleNamespace(manifest=None)
    report = evaluate(model, train, test, tmp_path, names, **settings)

    assert [call["classifier"] for call in linear] == ["svm", "logistic", "logistic"]
    assert [call["stage"] for call in stage] == ["conv3", "conv3"]
    assert [(call["source"] is train, call["source"] is test) for call in stage] == [
        (True, False),
        (False, True),
    ]
    assert clusters[0]["num_clusters"] == 2, "one for each class"
    assert [(call["fraction"], call["epochs"]) for call in tuned] == [(0.1, 7), (0.5, 7)]
    assert {call["seed"] for call in [*linear, *clusters, *tuned, *tsne]} == {3}
    assert report.value("clustering accuracy", "embedding") == 1
    assert report.value("fine-tuned, 50% of labels", "encoder") == 0.75
    assert report.row("linear, logistic", "conv3")["settings"] == {"C": 0.1, "dimensions": 5}


def test_the_encoder_s_features_are_compared_as_unit_rows(monkeypatch):
    """Their lengths say nothing; the inner product with a long row would be the largest."""
    train, test = colors(), colors(seed=1)
    features = {id(source): 9 * blobs(len(source))[0] + 1 for source in (train, test)}
    monkeypatch.setattr(measures, "encoder_features", lambda _, source: features[id(source)])
    monkeypatch.setattr(measures, "PIXEL_BYTES", 0)
    voted = watch(monkeypatch, measures, "knn_accuracy", 0.5)
    rows = np.eye(24, 8)
    measures.measure_knn(
        Report(),
        measures.Evaluated(
            None, train, test, measures.CommonLabels(train.labels, test.labels), rows, rows, None
        ),
        5,
        0.1,
    )
    assert len(voted) == 6, "kNN and 1-NN, of the embedding, and of the encoder in two ways"
    for call in voted[2:4]:
        for name, source in (("train_features", train), ("features", test)):
            raw = features[id(source)]
            unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
            np.testing.assert_allclose(call[name], unit, rtol=1e-12)


def test_an_encoder_that_has_collapsed_is_not_whitened(monkeypatch):
    train, test = colors(), colors(seed=1)
    monkeypatch.setattr(measures, "encoder_features", lambda _, source: np.ones((len(source), 8)))
    watch(monkeypatch, measures, "knn_accuracy", 0.5)
    report, rows = Report(), np.eye(24, 8)
    labels = measures.CommonLabels(train.labels, test.labels)
    it = measures.Evaluated(None, train, test, labels, rows + 0.1, rows + 0.1, None)
    measures.measure_knn(report, it, 5, 0.1)
    assert {row["features"] for row in report.rows} == {"embedding", "encoder", "pixels"}
