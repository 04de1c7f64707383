"""Runs that tests of checkpoints compare with, and one that was interrupted."""

import shutil

import pytest
from trainings import as_arrays, as_source, interrupted, run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, for each way of giving the images."""
    folders = {train: tmp_path_factory.mktemp("whole") for train in (as_source, as_arrays)}
    return {train: (run(train, folder), folder) for train, folder in folders.items()}


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    interrupted(as_source, folder, stop=5)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """The folder of a run that was interrupted in its second epoch."""
    return shutil.copytree(stopped_once, tmp_path / "run")
