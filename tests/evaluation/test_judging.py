"""The verdict without labels."""

import random

import keras
import numpy as np
import pytest
from problems import build_model, colors

from instdisc_core import InstanceDiscrimination
from instdisc_core.evaluation import Verdict, judged, verdict
from instdisc_core.evaluation.judging import with_random_weights

TASKS = ("altered copy", "warped copy")


def found(pixels, untrained, embedding, images=1000):
    names = ("pixels", "untrained encoder", "embedding")
    means = zip(names, (pixels, untrained, embedding), strict=True)
    return Verdict(
        {name: dict(zip(TASKS, (m - 0.1, m + 0.1), strict=True)) for name, m in means}, images
    )


@pytest.mark.parametrize(
    ("scores", "title"),
    [
        ((0.4, 0.2, 0.6), "The embedding is better than pixels and untrained encoder"),
        ((0.7, 0.2, 0.6), "The embedding is worse than pixels"),
        ((0.7, 0.8, 0.6), "The embedding is worse than untrained encoder and pixels"),
        ((0.7, 0.6, 0.6), "The embedding is worse than pixels"),
        ((0.615, 0.3, 0.6), "The embedding is about as good as pixels"),
        ((0.3, 0.585, 0.6), "The embedding is about as good as untrained encoder"),
    ],
)
def test_the_best_of_three_is_named_and_what_to_do(scores, title):
    judgment = found(*scores)
    assert judgment.title == title
    advised = all(
        advice in judgment.summary for advice in ("Train longer", "smaller images", "weights=FILE")
    )
    assert advised == ("better" not in title)
    assert judgment.summary.startswith(f"{title}.")


@pytest.mark.parametrize(("images", "margin"), [(60, 0.0816), (250, 0.04), (4000, 0.01)])
def test_with_fewer_images_only_larger_differences_count(images, margin):
    for factor, better, alike in ((0.9, [], ["pixels"]), (1.1, ["pixels"], [])):
        judgment = found(0.6 + factor * margin, 0.2, 0.6, images)
        assert (judgment.better_features, judgment.alike) == (better, alike)
        assert found(0.6 - factor * margin, 0.2, 0.6, images).alike == alike


def test_numbers_stand_next_to_each_other_and_are_written(tmp_path, figures):
    one = found(0.4, 0.2, 0.6)
    lines = str(one).splitlines()
    assert lines[0].split() == [
        "found",
        "among",
        "1,000",
        "altered",
        "copy",
        "warped",
        "copy",
        "mean",
    ]
    assert lines[1].split() == ["pixels", "0.300", "0.500", "0.400"]
    assert lines[3].split() == ["embedding", "0.500", "0.700", "0.600"]
    assert lines[4] == one.summary
    report = one.report()
    assert report.value("verdict", "pixels") == pytest.approx(0.4)
    assert report.value("warped copy", "untrained encoder") == pytest.approx(0.3)
    assert one.summary in str(report)
    report.save(tmp_path, "verdict")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"verdict.{s}" for s in ("txt", "csv", "json")
    }
    one.plot(tmp_path / "verdict.png")
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(one.scores)
    assert [bar.get_height() for bar in axes.containers[2]] == pytest.approx([0.5, 0.7, 0.6])
    assert "The embedding" in axes.get_title()


def test_a_model_is_compared_with_pixels_and_with_random_weights(model):
    judgment = verdict(model, colors(), images=10, seed=3)
    assert (list(judgment.scores), judgment.images) == (
        ["pixels", "untrained encoder", "embedding"],
        10,
    )
    again = verdict(model, colors(), images=10, seed=3)
    assert judgment == again
    itself = verdict(model, colors(), untrained=model, images=10)
    assert itself.scores["untrained encoder"] == itself.scores["embedding"]


def test_a_model_that_diverged_finds_nothing():
    model = build_model()
    model.projector.set_weights([np.full_like(w, np.nan) for w in model.projector.get_weights()])
    judgment = verdict(model, colors(), untrained=model, images=6)
    assert judgment.score("embedding") == 0
    assert "pixels" in judgment.better_features


def test_random_weights_are_others_and_nothing_else_is_drawn(model):
    before = random.getstate()
    copies = [with_random_weights(model, (16, 16), seed) for seed in (0, 0, 1)]
    assert random.getstate() == before
    first, equal, other = ([w for w in copy.get_weights() if w.std() > 0] for copy in copies)
    assert len(first) == 3
    for ours, theirs, others in zip(first, equal, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert not np.array_equal(ours, others)
    shapes = {w.shape for part in (model.encoder, model.projector) for w in part.get_weights()}
    assert {w.shape for w in copies[0].get_weights()} - {()} == shapes


class Opaque(keras.Model):
    """An encoder whose configuration does not rebuild it."""

    def __init__(self, width):
        super().__init__()
        self.dense = keras.layers.Dense(width)

    def call(self, images):
        return self.dense(keras.ops.mean(keras.ops.cast(images, "float32"), axis=(1, 2)))


def test_without_a_copy_of_the_encoder_pixels_are_left():
    model = InstanceDiscrimination(Opaque(4), 24, 8)
    judgment = verdict(model, colors(), images=6)
    assert list(judgment.scores) == ["pixels", "embedding"]
    assert "untrained" not in judgment.summary


def test_what_was_measured_before_training_is_named(model):
    class Tasks:
        images = np.zeros(5)

        def of_pixels(self):
            return {"task": 0.5}

        def of_model(self, model):
            return {"task": 0.9}

    judgment = judged(Tasks(), model, {"task": 0.7}, "pretrained encoder")
    assert list(judgment.scores) == ["pixels", "pretrained encoder", "embedding"]
    assert [judgment.score(name) for name in judgment.scores] == [0.5, 0.7, 0.9]
    assert list(judged(Tasks(), model, None).scores) == ["pixels", "embedding"]
