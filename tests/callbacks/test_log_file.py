"""Logs as a CSV file."""

import numpy as np
import pytest
from trainings import batches, build_plain

from instdisc_core.callbacks import LogFile, read_log


def test_a_log_file_has_every_column_and_continues(tmp_path):
    log = LogFile(tmp_path / "log.csv")
    for epoch, logs in enumerate([{"loss": 3}, {"loss": 2, "late": 7}, {"loss": 1}]):
        log.on_epoch_end(epoch, logs)
    LogFile(tmp_path / "log.csv").on_epoch_end(2, {"loss": 0.5, "later": 1})
    rows = read_log(tmp_path / "log.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["loss"] for row in rows] == ["3.0", "2.0", "0.5"]
    assert [row["late"] for row in rows] == ["", "7.0", ""]
    assert [row["later"] for row in rows] == ["", "", "1.0"]


def test_what_a_kill_left_of_a_log_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".part-1-log.csv").write_text("epo")
    others = {".part-1-model.keras", ".part-1-old-log.csv"}
    for name in others:
        (tmp_path / name).write_text("of another owner")
    build_plain().fit(batches(), verbose=0, callbacks=[LogFile(tmp_path / "log.csv")])
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv", *others}


@pytest.mark.parametrize(
    "text",
    ["epoch,loss\n0,1.0\n1", "epoch,loss\n0\n", "epoch,loss\nx,1\n", "epoch,loss\n0,1\r1\n"],
)
def test_a_damaged_log_is_named_before_the_first_step(tmp_path, text):
    (tmp_path / "log.csv").write_bytes(text.encode())
    with pytest.raises(ValueError, match=r"log\.csv, wh.*Restore it, or remove it"):
        read_log(tmp_path / "log.csv")
    log = LogFile(tmp_path / "log.csv")
    log.on_train_begin()
    with pytest.raises(ValueError, match=r"log\.csv, wh"):
        log.on_epoch_begin(0)


def test_numbers_alone_are_logged(tmp_path):
    log = LogFile(tmp_path / "log.csv")
    log.on_epoch_end(0, {"loss": 1.0, "f1": np.array([0.1, 0.2]), "auc": np.float32(0.5)})
    assert (tmp_path / "log.csv").read_text().splitlines() == ["epoch,loss,auc", "0,1.0,0.5"]
