"""Photos and an index of them that several tests share."""

import pytest
from photo_sets import DIM, SIDE, N, encoder, named, pixels

from instdisc_core import InstanceDiscrimination
from instdisc_core.index import ImageIndex


@pytest.fixture
def photos():
    return named(pixels())


@pytest.fixture
def model():
    model = InstanceDiscrimination(encoder(), N, DIM, "non_parametric_softmax", seed=0)
    model.compile(optimizer="sgd", run_eagerly=True)
    model.build((None, SIDE, SIDE, 3))
    return model


@pytest.fixture
def index(model, photos):
    return ImageIndex.from_model(model, photos)
