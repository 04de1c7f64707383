"""A model that is trained on a source: order, identity of the data, prediction."""

import keras
import numpy as np
import pytest

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import ImageArray

pytestmark = pytest.mark.usefixtures("uncompiled")


class Seen(keras.layers.Layer):
    """Pixels that are scaled and kept as features, so that nothing is learned but the order."""

    def call(self, images):
        return keras.ops.reshape(keras.ops.cast(images, "float32") / 255 - 0.5, (-1, 12))


def model_for(n):
    keras.utils.set_random_seed(0)
    model = InstanceDiscrimination(
        Seen(), n, 4, NonParametricSoftmax(0.5), projector=keras.layers.Dense(4), seed=0
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


class Orders(keras.callbacks.Callback):
    def __init__(self, batches):
        super().__init__()
        self.batches, self.epochs = batches, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.epochs.append(self.batches.epoch)


def source_of(n=10, seed=0):
    return ImageArray(np.random.default_rng(seed).integers(0, 256, (n, 2, 2, 3)).astype("uint8"))


def test_fit_runs_through_the_epochs_and_a_run_that_continues_is_the_same():
    whole, parts = model_for(10), model_for(10)
    batches = source_of().batches(4, seed=0)
    seen = Orders(batches)
    whole.fit(batches, epochs=3, verbose=0, callbacks=[seen])
    assert seen.epochs == [0, 1, 2]
    parts.fit(source_of().batches(4, seed=0), epochs=1, verbose=0)
    parts.fit(source_of().batches(4, seed=0), epochs=3, initial_epoch=1, verbose=0)
    for ours, theirs in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(ours), keras.ops.convert_to_numpy(theirs)
        )


def test_a_model_knows_its_images_and_rejects_others(tmp_path):
    model, batches = model_for(10), source_of().batches(4, seed=0)
    model.fit(batches, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Seen": Seen})
    weights = model_for(10)
    weights.build((None, 2, 2, 3))
    weights.load_weights(tmp_path / "model.weights.h5")
    for restored in (loaded, weights):
        assert restored.manifest == batches.manifest
        before = keras.ops.convert_to_numpy(restored.memory_bank.rows)
        other = source_of(seed=1).batches(4, seed=0)
        for run in (restored.fit, restored.evaluate):
            with pytest.raises(ValueError, match="10 changed: image 0, image 1"):
                run(other, verbose=0)
        assert np.array_equal(keras.ops.convert_to_numpy(restored.memory_bank.rows), before)
        restored.fit(source_of().batches(4, seed=0), verbose=0)


def test_evaluating_binds_a_model_to_no_data():
    model = model_for(10)
    model.evaluate(source_of(seed=1).batches(4, seed=0), verbose=0)
    assert model.manifest is None
    model.fit(source_of().batches(4, seed=0), verbose=0)
    assert model.manifest == source_of().manifest


def test_too_many_images_for_the_bank():
    with pytest.raises(ValueError, match=r"with 11 images. Expected 10.*num_instances=11"):
        model_for(10).fit(source_of(11).batches(4, seed=0), verbose=0)


def test_predict_takes_a_source_in_order():
    model, source = model_for(10), source_of()
    model.fit(source.batches(4, seed=0), verbose=0)
    np.testing.assert_allclose(
        model.predict(source.ordered(3), verbose=0),
        model.predict(source.images(), verbose=0),
        atol=1e-6,
    )


def test_predict_rejects_the_order_of_training():
    with pytest.raises(ValueError, match=r"order of training.*source\.ordered\(\)"):
        model_for(10).predict(source_of().batches(4, seed=0))
