"""Data sets of other libraries as image sources."""

import os

import datasets
import grain
import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from PIL import Image

from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import image_source

COLORS = np.random.default_rng(0).integers(0, 256, (7, 3)).astype("uint8")
IMAGES = np.broadcast_to(COLORS[:, None, None], (7, 4, 4, 3)).copy()
LABELS = [0, 1, 2, 0, 1, 2, 0]


class TorchImages(torch.utils.data.Dataset):
    """As torchvision's: an image of floats, channels first, with its target."""

    targets = LABELS
    classes = ("a", "b", "c")

    def __len__(self):
        return 7

    def __getitem__(self, i):
        return torch.tensor(IMAGES[i]).permute(2, 0, 1) / 255, LABELS[i]


def hugging_face():
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    images = [Image.fromarray(image) for image in IMAGES]
    return datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)


@pytest.mark.parametrize(
    ("data", "knows_labels"),
    [
        (TorchImages(), True),
        (hugging_face(), True),
        (grain.MapDataset.source(list(IMAGES)), False),
        (tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)), True),
        (tf.data.Dataset.from_tensor_slices(IMAGES), False),
    ],
    ids=["torch", "hugging face", "grain", "tf.data with labels", "tf.data"],
)
def test_each_yields_its_images_by_their_index(data, knows_labels):
    source = image_source(data, size=4)
    assert np.array_equal(source.images(), IMAGES)
    assert (source.labels is not None) == knows_labels
    if knows_labels:
        assert source.labels.tolist() == LABELS
    images, indices = source.batches(4, seed=0)[0]
    assert np.array_equal(images, IMAGES[indices])


def test_hugging_face_s_classes_have_names():
    assert image_source(hugging_face(), size=4).class_names == ["a", "b", "c"]
    assert list(image_source(TorchImages(), size=4).class_names) == ["a", "b", "c"]


def test_a_source_of_another_library_trains():
    source = image_source(hugging_face(), size=4)
    model = InstanceDiscrimination(keras.layers.Flatten(), 7, 4, NonParametricSoftmax(0.5), seed=0)
    model.compile(optimizer="sgd")
    history = model.fit(source.batches(4, seed=0), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert model.manifest == source.manifest


def test_a_stream_says_how_to_number_it():
    stream = tf.data.Dataset.from_tensor_slices(IMAGES).enumerate().map(lambda i, image: (image, i))
    model = InstanceDiscrimination(keras.layers.Flatten(), 7, 4, NonParametricSoftmax(0.5), seed=0)
    model.compile(optimizer="sgd")
    assert np.isfinite(model.fit(stream.batch(3), shuffle=False, verbose=0).history["loss"][0])
    assert os.environ["KERAS_BACKEND"] == keras.backend.backend()
