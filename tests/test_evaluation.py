"""Linear classifiers, clusters, few labels, retrieval, maps, and the report of them all."""

import csv
import itertools
import json
import os

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from instdisc_core import InstanceDiscrimination, MemoryBank, NonParametricSoftmax
from instdisc_core.data import ImageArray, ImageDataset, ImageFolder
from instdisc_core.data.manifest import printable
from instdisc_core.encoders import resnet
from instdisc_core.evaluation import (
    cluster,
    clustering_scores,
    embedding_map,
    evaluate,
    fine_tuned_accuracy,
    linear_accuracy,
    retrieve,
)
from instdisc_core.evaluation.features import (
    embeddings,
    encoder_features,
    pixels,
    stage_features,
    stage_names,
    unit,
)
from instdisc_core.evaluation.low_shot import labelled_subset
from instdisc_core.evaluation.positions import positions_in

RNG = np.random.default_rng(0)
PNG = b"\x89PNG"


def blobs(n=120, classes=3, spread=0.1, seed=0):
    """Points around one centre a class: features and labels."""
    rng = np.random.default_rng(seed)
    centres = np.eye(classes, 8)
    labels = np.arange(n) % classes
    return centres[labels] + spread * rng.standard_normal((n, 8)), labels


def colours(n=24, size=16, seed=0):
    """Images of noise around one of two colours, in two classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    base = np.array([[200, 60, 60], [60, 60, 200]])[labels][:, None, None]
    images = np.clip(base + rng.normal(0, 20, (n, size, size, 3)), 0, 255)
    return ImageArray(images.astype("uint8"), labels, class_names=["red", "blue"])


def build_model(augmenter=None):
    """An untrained model that knows the images of ``colours()``."""
    keras.utils.set_random_seed(0)
    encoder = resnet(10, (16, 16, 3), "cifar", width=4, include_preprocessing=True)
    model = InstanceDiscrimination(
        encoder, 24, 8, NonParametricSoftmax(0.1), augmenter=augmenter, seed=0
    )
    model.compile(optimizer="sgd")
    model.manifest = colours().manifest
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
    source = colours()
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
    source = colours()
    expected = numpy(model.encoder(source.images().astype("float32"), training=False))
    np.testing.assert_allclose(encoder_features(model, source, 7), expected, rtol=1e-4, atol=1e-5)
    rows, mean = pixels(source)
    flat = source.images().reshape(24, -1).astype("float64")
    centred = flat - flat.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-5)
    assert np.array_equal(unit(np.zeros((1, 3))), np.zeros((1, 3)))


# -- few labels


@given(st.integers(1, 40), st.sampled_from([0.01, 0.1, 0.25, 1.0]), st.integers(0, 3))
def test_every_class_gets_its_share_and_less_is_a_part_of_more(each, fraction, seed):
    labels = np.repeat([3, 5, 9], each)
    chosen = labelled_subset(labels, fraction, seed)
    counts = np.unique(labels[chosen], return_counts=True)[1]
    assert counts.tolist() == [max(1, round(fraction * each))] * 3
    assert set(labelled_subset(labels, fraction / 2, seed)) <= set(chosen)


def test_fine_tuning_learns_and_leaves_the_model_as_it_was(model):
    before = [numpy(w) for w in model.variables]
    accuracy = fine_tuned_accuracy(
        model, colours(), colours(seed=1), 0.5, epochs=12, learning_rate=0.05, batch_size=4
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
    fine_tuned_accuracy(model, colours(), colours(seed=1), 0.5, epochs=1)
    assert calls
    assert all(calls)
    assert np.abs(seen[0][0]).max() > 0, "batch normalization followed the batches"


def test_fine_tuning_needs_labels_that_match(model):
    bare = ImageArray(colours().images())
    with pytest.raises(ValueError, match=r"labels for test only\. Expected both or none"):
        fine_tuned_accuracy(model, bare, colours(), 0.5)
    other = ImageArray(
        colours().images(), np.arange(24), class_names=list("abcdefghijklmnopqrstuvwx")
    )
    with pytest.raises(ValueError, match=r"test labels \['a', 'b'"):
        fine_tuned_accuracy(model, colours(), other, 0.5)


# -- retrieval


def on_a_circle(n):
    angles = np.linspace(0, np.pi, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def named(n, labels=None):
    images = np.zeros((n, 4, 4, 3), "uint8")
    images[:, 0, 0, 0] = np.arange(n)
    return ImageArray(images, labels, names=[f"<{i}>.jpg" for i in range(n)])


def test_neighbours_are_the_nearest_and_never_the_query_itself():
    source = named(9)
    found = retrieve(on_a_circle(9), source, on_a_circle(9), source, k=2, indices=[4, 0])
    assert [set(row) for row in found.neighbours.tolist()] == [{3, 5}, {1, 2}]
    assert found.names()[1] == ("<0>.jpg", ["<1>.jpg", "<2>.jpg"])
    np.testing.assert_allclose(found.similarities[0], np.cos(np.pi / 8), rtol=1e-5)


def test_an_image_is_itself_by_its_data():
    """It is found neither in a second object of the same data nor from a part of it."""
    gallery, rows = named(9), on_a_circle(9)
    unread = ImageDataset(list(gallery.images()), 4, cache=False)
    later = ImageArray(gallery.images(range(4, 9)), names=["x", *gallery.names[5:]])
    for queries, own in (
        (gallery, range(9)),
        (named(9), range(9)),
        (named(9).subset([7, 2, 5]), [7, 2, 5]),
        (ImageArray(255 - gallery.images(), names=gallery.names), [-1] * 9),
        (ImageArray(gallery.images()), [-1] * 9),  # other names
        (unread, [-1] * 9),  # no digests
        (later, [-1, 5, 6, 7, 8]),
    ):
        assert positions_in(gallery, queries).tolist() == list(own)
        angles = [i if i >= 0 else 3 for i in own]
        found = retrieve(rows[angles], queries, rows, gallery, k=1).neighbours[:, 0]
        for i, j in zip(own, found, strict=True):
            assert j == 3 if i < 0 else abs(i - j) == 1
    assert positions_in(unread, unread).tolist() == list(range(9))
    some = retrieve(rows[[7, 2, 5]], gallery.subset([7, 2, 5]), rows, gallery, 1, indices=[2, 0])
    assert some.names()[0][0] == "<5>.jpg"
    assert np.abs(some.neighbours[:, 0] - [5, 7]).tolist() == [1, 1]


def test_all_of_the_gallery_but_the_query_itself_can_be_found():
    gallery, rows = named(5), on_a_circle(5)
    assert retrieve(rows, gallery, rows, gallery, k=4).neighbours.shape == (5, 4)
    other = ImageArray(255 - gallery.images())
    assert retrieve(rows, other, rows, gallery, k=5).neighbours.shape == (5, 5)
    mixed = ImageArray(np.stack([gallery.image(0), other.image(1)]), names=["<0>.jpg", "new"])
    assert retrieve(rows[:2], mixed, rows, gallery, k=5, indices=[1]).neighbours.shape == (1, 5)
    for queries, most in ((gallery, 4), (named(5), 4), (other, 5), (mixed, 4)):
        with pytest.raises(ValueError, match=rf"k={most + 1}\. Expected at most {most}"):
            retrieve(rows[: len(queries)], queries, rows, gallery, k=most + 1)


def test_where_the_query_s_own_row_is_far_off_the_last_one_is_left_out():
    """A bank's row can lag so far behind that the image itself is not among the nearest."""
    source, rows = named(5), on_a_circle(5)
    found = retrieve(-rows[[0]], source.subset([0]), rows, source, k=2)
    assert found.neighbours.tolist() == [[4, 3]]
    np.testing.assert_allclose(found.similarities, [[1, np.cos(np.pi / 4)]], atol=1e-6)


def test_of_many_equal_images_none_is_its_own_neighbour():
    source, same = named(5), np.tile(np.float32([[1, 0]]), (5, 1))
    found = retrieve(same, source, same, source, k=2)
    assert found.neighbours.shape == (5, 2)
    assert not np.any(found.neighbours == np.arange(5)[:, None])


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_gallery_is_checked_against_the_bank_s_manifest(dtype):
    source, rows = named(5), on_a_circle(5)
    bank = MemoryBank(5, 2, dtype=dtype)
    bank.rows.assign(rows)
    other = ImageArray(255 - source.images(), names=source.names)
    for gallery in (source, other):
        found = retrieve(rows, source, bank, gallery, k=1)  # it does not know whose rows it has
        assert found.neighbours[0].tolist() == [1 if gallery is source else 0]
    bank.manifest = named(5).manifest
    np.testing.assert_array_equal(
        retrieve(rows, source, bank, source, k=4).neighbours,
        retrieve(rows, source, bank.rows, source, k=4).neighbours,
    )
    with pytest.raises(ValueError, match=r"a gallery with 5 images .* 5 changed: <0>\.jpg, <1>"):
        retrieve(rows, source, bank, other, k=1)
    with pytest.raises(ValueError, match=r"a gallery with 4 images .* 1 missing: <4>\.jpg"):
        retrieve(rows, source, bank, source.subset(range(4)), k=1)


def test_embeddings_that_are_not_finite_have_no_neighbors_clusters_or_map(tmp_path):
    source, rows = named(9), np.eye(9, dtype="float32")
    wrong = rows.copy()
    wrong[[2, 4], 0] = np.nan, np.inf
    expected = r"features in which 2 of {} rows are not finite: {}\."
    with pytest.raises(ValueError, match=expected.format(9, "2, 4")):
        retrieve(wrong, source, rows, source, k=1)
    with pytest.raises(ValueError, match=expected.format(3, "4, 2")):
        retrieve(wrong, source, rows, source, k=1, indices=[4, 1, 2])
    assert retrieve(wrong, source, rows, source, k=1, indices=[1, 3]).neighbours.shape == (2, 1)
    with pytest.raises(ValueError, match="gallery_" + expected.format(9, "2, 4")):
        retrieve(rows, source, wrong, source, k=1)
    answers = np.arange(9) % 2
    for arguments in ((wrong, answers, rows, answers), (rows, answers, wrong, answers)):
        with pytest.raises(ValueError, match=expected.format(9, "2, 4")):
            linear_accuracy(*arguments)
    expected = expected.replace("features", "embeddings").format(9, "2, 4")
    with pytest.raises(ValueError, match=expected):
        cluster(wrong, 2)
    with pytest.raises(ValueError, match=expected):
        embedding_map(wrong, source, tmp_path / "map.png")
    assert not (tmp_path / "map.png").exists()


def test_a_model_that_diverged_is_not_evaluated():
    model = build_model()
    model.projector.set_weights([np.full_like(w, np.nan) for w in model.projector.get_weights()])
    with pytest.raises(ValueError, match=r"embeddings in which 24 of 24 rows are not finite"):
        evaluate(model, colours(), colours(seed=1), measures=["knn"])
    model.encoder.set_weights([np.full_like(w, np.nan) for w in model.encoder.get_weights()])
    for compute in (encoder_features, lambda *a: stage_features(*a, "conv1")):
        with pytest.raises(ValueError, match=r"features in which 24 of 24 rows are not finite"):
            compute(model, colours())


def test_best_and_worst_are_by_agreement():
    source = named(6, labels=[0, 0, 0, 1, 0, 1])
    found = retrieve(on_a_circle(6), source, on_a_circle(6), source, k=1)
    assert found.agreement[5] == 0
    assert found.agreement[0] == 1
    assert found.worst(1).agreement[0] == 0
    assert found.best(2).agreement.tolist() == [1, 1]
    assert len(found.best(100).indices) == 6


def test_pictures_and_pages_of_neighbours(tmp_path):
    for labels in (None, [0, 0, 0, 1, 0, 1]):
        source = named(6, labels)
        found = retrieve(on_a_circle(6), source, on_a_circle(6), source, k=3)
        found.plot(tmp_path / "found.png", "title")
        assert (tmp_path / "found.png").read_bytes()[:4] == PNG
        found.page(tmp_path / "found.html", "A & B")
        page = (tmp_path / "found.html").read_text()
        assert page.count("<img") == 6 * 4
        assert "&lt;3&gt;.jpg" in page
        assert "<3>.jpg" not in page
        assert "<h1>A &amp; B</h1>" in page
        assert ("the class of the query" in page) == (labels is not None)


@pytest.fixture
def oddly_named(tmp_path):
    """A folder of three classes, whose names and whose files' names are not UTF-8 or hold ``$``."""
    for i, folder in enumerate([b"caf\xe9", b"$x_{1$", b"_hidden"]):
        parent = os.path.join(os.fsencode(tmp_path / "photos"), folder)
        try:
            os.makedirs(parent)
        except OSError:
            pytest.skip("this file system takes no names that are not UTF-8")
        for j, name in enumerate([b"caf\xe9.png", b"$x_{1$.png"]):
            image = np.full((8, 8, 3), 60 * i + 20 * j, "uint8")
            Image.fromarray(image).save(os.path.join(parent, name).decode(errors="surrogateescape"))
    return ImageFolder(tmp_path / "photos", 8)


def drawn_texts(monkeypatch):
    """What is written in the figures that are saved from now on, filled as they are."""
    texts, save = [], Figure.savefig

    def watched(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        texts.extend(text.get_text() for text in figure.findobj(Text) if text.get_visible())

    monkeypatch.setattr(Figure, "savefig", watched)
    return texts


def test_names_of_any_bytes_are_shown_on_pages_and_pictures(oddly_named, tmp_path, monkeypatch):
    rows, title = on_a_circle(6), "caf\udce9 & $x_{1$"
    found = retrieve(rows, oddly_named, rows, oddly_named, k=2)
    found.page(tmp_path / "found.html", title)
    page = (tmp_path / "found.html").read_text(encoding="utf-8")
    assert page.count("<h1>caf\ufffd &amp; $x_{1$</h1>") == 1
    assert page.count('alt="$x_{1$/$x_{1$.png"') == found.indices.tolist().count(0) + sum(
        names.count("$x_{1$/$x_{1$.png") for _, names in found.names()
    )
    for i in range(6):
        assert printable(oddly_named.names[i]) in page
    assert {"caf\udce9/caf\udce9.png", "$x_{1$/caf\udce9.png"} <= set(oddly_named.names)

    texts = drawn_texts(monkeypatch)
    found.plot(tmp_path / "found.png", title)
    expected = {"caf\ufffd & $x_{1$", "caf\ufffd/caf\ufffd.png", "$x_{1$/$x_{1$.png"}
    assert expected <= {text.split("\n")[0] for text in texts}

    texts.clear()
    embedding_map(rows, oddly_named, tmp_path / "map.png", title=title)
    assert {"caf\ufffd & $x_{1$", "caf\ufffd", "$x_{1$", "_hidden"} <= set(texts)


def test_retrieval_is_checked():
    source = named(5)
    with pytest.raises(ValueError, match=r"features of shape \(4, 2\) for 5 images"):
        retrieve(on_a_circle(4), source, on_a_circle(5), source)
    with pytest.raises(ValueError, match=r"k=5. Expected at most 4"):
        retrieve(on_a_circle(5), source, on_a_circle(5), source, k=5)


# -- maps


def test_a_map_shows_points_by_class_or_the_images(tmp_path):
    rows, labels = blobs(30)
    images = RNG.integers(0, 256, (30, 4, 4, 3)).astype("uint8")
    for source in (ImageArray(images, labels), ImageArray(images)):
        places, chosen = embedding_map(unit(rows), source, tmp_path / "map.png", num_images=20)
        assert places.shape == (20, 2)
        assert len(set(chosen)) == 20
        assert (tmp_path / "map.png").read_bytes()[:4] == PNG
    with pytest.raises(ValueError, match=r"3 images\. Expected at least 4"):
        embedding_map(unit(rows[:3]), ImageArray(images[:3]), tmp_path / "map.png")


# -- the report


def test_one_call_measures_everything(model, tmp_path):
    train, test = colours(), colours(seed=1)
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
    assert rows["1-NN", "pixels"] == 1, "two colours are easy"
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


def test_on_other_images_nothing_is_said_of_the_bank(model):
    report = evaluate(model, colours(seed=2), colours(seed=1), measures=["knn"])
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


def test_pixels_of_the_test_are_centred_by_the_training_mean(model):
    """Dark test images: by their own mean they would look like anything."""
    values = np.repeat(np.uint8([60, 200]), 12)
    images = np.ones((24, 16, 16, 3), "uint8") * values[:, None, None, None]
    train = ImageArray(images, np.repeat([0, 1], 12))
    test = ImageArray(np.full((4, 16, 16, 3), 70, "uint8"), [0] * 4)
    assert evaluate(model, train, test, measures=["knn"], k=5).value("kNN", "pixels") == 1


def test_without_labels_there_are_pictures(model, tmp_path):
    train, test = (ImageArray(colours(seed=s).images()) for s in (0, 1))
    report = evaluate(model, train, test, tmp_path, measures=["knn", "retrieval"])
    assert report.rows == []
    assert len(report.pictures) == 3


def test_a_report_s_arguments_are_checked(model):
    bare = ImageArray(colours().images())
    with pytest.raises(ValueError, match=r"measures \['magic'\]"):
        evaluate(model, colours(), colours(), measures=["magic"])
    with pytest.raises(ValueError, match=r"labels for train only\. Expected both or none"):
        evaluate(model, colours(), bare)
    with pytest.raises(ValueError, match=r"test labels \['a', 'b'"):
        evaluate(
            model,
            colours(),
            ImageArray(
                colours().images(), np.arange(24), class_names=list("abcdefghijklmnopqrstuvwx")
            ),
        )


def test_embeddings_are_those_of_predict(model):
    source = colours()
    np.testing.assert_allclose(
        embeddings(model, source, 7), model.predict(source.images(), verbose=0), atol=1e-4
    )
