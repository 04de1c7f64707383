"""Which checkpoints stay, and which of them is taken."""

import json
import os

import pytest
from damage import cut, flip
from trainings import Stop, as_arrays, as_source, build_plain, interrupted

from instdisc_core.checkpoints import Checkpoints
from instdisc_core.checkpoints import folder as checkpoint_folder
from instdisc_core.checkpoints.folder import CheckpointFolder

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.on_one_backend
def test_the_last_ones_stay(tmp_path):
    interrupted(as_arrays, tmp_path, stop=6)
    names = sorted(p.name for p in (tmp_path / "saved").glob("epoch*"))
    assert names == [f"epoch-0000{e}-step-000000{s}" for e, s in ((1, 0), (1, 1), (1, 2))]


def claim_epoch_99(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "epoch": 99}))


@pytest.mark.on_one_backend
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.weights.h5", cut),
        ("model.weights.h5", flip),
        ("state.npz", cut),
        ("state.npz", flip),
        ("checkpoint.json", cut),
        ("checkpoint.json", flip),
        ("checkpoint.json", claim_epoch_99),
        ("checkpoint.json", os.unlink),
        ("checkpoint.json", lambda path: path.write_text("[]")),
        ("checkpoint.json", lambda path: path.write_text("[" * 10_000)),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(stopped, file, damage):
    *_, before, last = sorted((stopped / "saved").glob("epoch*"))
    damage(last / file)
    with pytest.warns(UserWarning, match=rf"Damaged checkpoints .*{last.name} \("):
        path, about = CheckpointFolder(stopped / "saved", 3).newest()
    assert path == before
    assert before.name == "epoch-{epoch:05d}-step-{step:07d}".format(**about)


def test_parts_of_two_checkpoints_are_not_one(stopped):
    older, newer = sorted((stopped / "saved").glob("epoch*"))[-2:]
    (newer / "model.weights.h5").write_bytes((older / "model.weights.h5").read_bytes())
    with pytest.warns(UserWarning, match="weights of another checkpoint"):
        CheckpointFolder(stopped / "saved", 3).newest()


@pytest.mark.on_one_backend
def test_damaged_checkpoints_of_later_steps_never_push_out_a_whole_one(tmp_path):
    for keep in (3, 1):
        folder = tmp_path / str(keep)
        as_source(build_plain(), callbacks=[Checkpoints(folder, 1)])
        *_, last = sorted(folder.glob("epoch*"))
        for path in sorted(folder.glob("epoch*"))[1:]:
            (path / "state.npz").write_bytes(b"x")
        with (
            pytest.warns(UserWarning, match="Damaged checkpoints"),
            pytest.raises(KeyboardInterrupt),
        ):
            as_source(build_plain(), callbacks=[Checkpoints(folder, 1, keep), Stop(2)])
        found = checkpoint_folder.CheckpointFolder(folder, keep)
        assert found.newest()[0] == found.paths()[-1] < last
        assert len(found.paths()) <= keep
