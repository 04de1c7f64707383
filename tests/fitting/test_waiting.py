"""A training that waits for its images says so."""

import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from models import runs_eagerly

from instdisc_core import InstanceDiscrimination
from instdisc_core.data import ImageArray, batches
from instdisc_core.fitting import waiting


@pytest.fixture
def fit(monkeypatch):
    """Train on 10 batches an epoch, by a clock on which decoding and training take seconds."""
    clock = SimpleNamespace(now=0.0)
    for module in (batches, waiting):
        fake = SimpleNamespace(perf_counter=lambda: clock.now)
        monkeypatch.setattr(module, "time", fake)

    def fit(decoding, training, epochs=2):
        source = ImageArray(np.arange(20 * 12, dtype="uint8").reshape(20, 2, 2, 3))
        start = source.start

        def slow_start(indices):
            wait = start(indices)

            def slow_wait():
                clock.now += decoding
                return wait()

            return slow_wait

        def train(batch, logs):
            clock.now += training

        source.start = slow_start
        model = InstanceDiscrimination(keras.layers.Flatten(), 20, 2, seed=0)
        model.compile(optimizer="sgd", run_eagerly=runs_eagerly())
        step = keras.callbacks.LambdaCallback(on_train_batch_end=train)
        model.fit(source.batches(2, seed=0), epochs=epochs, verbose=0, callbacks=[step])

    return fit


def test_a_training_that_waits_for_its_images_warns_once(fit):
    with warnings.catch_warnings(record=True) as found:
        warnings.filterwarnings("always", ".*decoded too slowly")
        fit(decoding=2, training=3)
    assert len(found) == 1
    assert "epoch 1 waited 20 of its 50 seconds" in str(found[0].message)


@pytest.mark.parametrize(("decoding", "training"), [(2, 5), (0.9, 0)])
def test_a_training_that_waits_little_does_not_warn(fit, decoding, training):
    with warnings.catch_warnings(record=True) as found:
        warnings.filterwarnings("always", ".*decoded too slowly")
        fit(decoding, training)
    assert not found
