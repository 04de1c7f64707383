"""One process at a time in a folder."""

import json
import os
import shutil
import subprocess
import sys

import keras
import pytest
from trainings import as_source, build

from instdisc_core.checkpoints import Checkpoints, FolderLock

HOLD = """
import sys, time
from instdisc_core.checkpoints import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a lock knows no backend")
def test_a_folder_in_use_names_the_process_and_is_free_when_that_is_killed(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=rf"which process {holder.pid} on .* is using"):
            as_source(build(), callbacks=[Checkpoints(tmp_path)])
    finally:
        holder.kill()
        holder.communicate()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / "process.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "process.json").exists()


def test_a_lock_that_cannot_say_who_holds_it_holds_and_is_given_back(tmp_path):
    (tmp_path / "process.json").mkdir()
    with FolderLock(tmp_path), pytest.raises(ValueError, match="which another process is using"):
        FolderLock(tmp_path).__enter__()
    shutil.rmtree(tmp_path / "process.json")
    with FolderLock(tmp_path):
        assert (tmp_path / "process.json").is_file()
