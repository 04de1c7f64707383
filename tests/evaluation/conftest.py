"""Fixtures that several tests of evaluation share."""

import pytest
from matplotlib.figure import Figure
from problems import build_model


@pytest.fixture(scope="session")
def model():
    """One model for all tests that leave it as it was."""
    return build_model()


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, as they are then."""
    saved, save = [], Figure.savefig

    def watched(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", watched)
    return saved
