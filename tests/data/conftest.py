"""A folder of images for every test of data."""

import pytest
from image_files import two_classes


@pytest.fixture
def folder(tmp_path):
    """Twelve images of one color each, in two classes."""
    return two_classes(tmp_path / "photos")
