"""Choices of the model, and the order of its parts."""

import keras
import numpy as np
import pytest
from models import DIM, SIZE, small_model

from instdisc_core import (
    InstanceDiscrimination,
)

IMAGES = np.random.default_rng(0).random((SIZE, 6)).astype("float32")


@pytest.mark.parametrize(
    ("argument", "value"), [("non_finite", "ignore"), ("preprocessing", "caffe")]
)
def test_choices_are_checked_and_saved(argument, value, tmp_path):
    with pytest.raises(ValueError, match=f"{argument}='{value}'"):
        small_model(**{argument: value})
    model = small_model(non_finite="skip", preprocessing=keras.layers.Rescaling(2.0))
    model.predict(IMAGES, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.non_finite == "skip"
    assert again.preprocessing.scale == 2
    np.testing.assert_array_equal(
        again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )


def test_preprocessing_comes_before_the_encoder_and_after_the_augmentation():
    seen = []

    class Watch(keras.layers.Layer):
        def __init__(self, what):
            super().__init__()
            self.what = what

        def call(self, images):
            seen.append(self.what)
            return images

    model = InstanceDiscrimination(
        keras.layers.Dense(5), SIZE, DIM, preprocessing=Watch("pre"), augmenter=Watch("augment")
    )
    model(IMAGES, training=True)
    model(IMAGES)
    assert seen[-3:] == ["augment", "pre", "pre"]
