"""Photos and an index of them that several tests share."""

import pytest
from models import small_model
from photo_sets import DIM, SIDE, N, encoder, named, pixels

from instdisc_core.index import ImageIndex


@pytest.fixture
def photos():
    return named(pixels())


@pytest.fixture
def model():
    model = small_model(encoder(), N, DIM, compiled=False)
    model.build((None, SIDE, SIDE, 3))
    return model


@pytest.fixture
def index(model, photos):
    return ImageIndex.from_model(model, photos)
