"""Fine-tuning with few labels."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from hypothesis import given
from hypothesis import strategies as st
from problems import build_model, colors

from instdisc_core import InstanceDiscrimination
from instdisc_core.data import ImageArray, ImageSource
from instdisc_core.evaluation import fine_tuned_accuracy
from instdisc_core.evaluation.low_shot import labeled_subset

pytestmark = pytest.mark.usefixtures("uncompiled")


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


@pytest.mark.on_one_backend
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


@pytest.mark.on_one_backend
@pytest.mark.parametrize(("batch_size", "sizes"), [(7, {7}), (100, {20})])
def test_fine_tuning_steps_on_whole_batches(batch_size, sizes):
    """A rest of one or two images would leave its moments in batch normalization."""
    seen, source = [], colors()

    class Watch(keras.layers.Layer):
        def call(self, images, training=False):
            if training:
                seen.append(len(images))
            return images

    fraction = 20 / len(source)
    model = build_model(Watch())
    seen.clear()
    fine_tuned_accuracy(model, source, colors(seed=1), fraction, 2, batch_size=batch_size)
    assert set(seen) == sizes


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


@pytest.mark.on_one_backend
def test_fine_tuning_needs_labels_that_match(model):
    bare = ImageArray(colors().images())
    with pytest.raises(ValueError, match=r"labels for test only\. Expected both or none"):
        fine_tuned_accuracy(model, bare, colors(), 0.5)
    other = ImageArray(
        colors().images(), np.arange(24), class_names=list("abcdefghijklmnopqrstuvwx")
    )
    with pytest.raises(ValueError, match=r"test labels \['a', 'b'"):
        fine_tuned_accuracy(model, colors(), other, 0.5)


def test_a_model_that_was_never_called_can_be_fine_tuned():
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    train = colors(8, size=2)
    fine_tuned_accuracy(InstanceDiscrimination(encoder, 8, 2), train, train, 1.0, epochs=1)
    assert encoder.built


def test_fine_tuning_preprocesses_as_the_model_does():
    seen = []

    class Halve(keras.layers.Layer):
        def call(self, images):
            seen.append(tuple(images.shape))
            return keras.ops.cast(images, "float32") / 2

    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    model = InstanceDiscrimination(encoder, 24, 8, preprocessing=Halve())
    model.build((None, 16, 16, 3))
    before = len(seen)
    fine_tuned_accuracy(model, colors(), colors(seed=1), 0.5, epochs=1)
    assert len(seen) > before
