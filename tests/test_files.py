"""Files that are replaced at once."""

from pathlib import Path

import pytest
from trainings import batches, build_plain

from instdisc_core.checkpoints import Checkpoints
from instdisc_core.checkpoints import folder as checkpoint_folder
from instdisc_core.files import replacing

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_a_file_is_replaced_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.suffix == ".txt"
    assert path.read_text() == "new"
    context = replacing(path)
    context.__enter__().write_text("newer")
    assert not context.__exit__(KeyError, KeyError(), None)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with replacing(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are read from /proc")
def test_everything_is_flushed_before_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    for name in ("rename", "replace"):
        function = getattr(checkpoint_folder.os, name)

        def renamed(source, target, function=function):
            function(source, target)
            events.append(("named", str(target)))

        monkeypatch.setattr(checkpoint_folder.os, name, renamed)
    flush = checkpoint_folder.os.fsync

    def flushed(descriptor):
        flush(descriptor)
        events.append(("flushed", checkpoint_folder.os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(checkpoint_folder.os, "fsync", flushed)
    (folder := tmp_path / "saved").mkdir()
    build_plain().fit(batches(), verbose=0, callbacks=[Checkpoints(folder)])
    end = events.index(("named", str(folder / "epoch-00001-step-0000000")))
    before = [path.rpartition("/")[2] for kind, path in events[:end] if kind == "flushed"]
    assert {"model.weights.h5", "state.npz", "checkpoint.json"} <= set(before)
    assert before[-1].endswith("epoch-00001-step-0000000"), "the folder itself, last"
    assert events[end + 1] == ("flushed", str(folder))
    events.clear()
    with replacing(tmp_path / "file") as part:
        part.write_text("x")
    assert [kind for kind, _ in events] == ["flushed", "named", "flushed"]
    assert events[2][1] == str(tmp_path)
