"""Pictures of logs."""

import pytest
from matplotlib.figure import Figure

from instdisc_core.callbacks import LogFile, plot_log

pytestmark = pytest.mark.framework_independent


def test_every_column_with_numbers_is_a_curve_over_the_epochs(tmp_path, monkeypatch):
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kw: saved.append(args) or save(*args))
    log = LogFile(tmp_path / "log.csv")
    for epoch, late in enumerate([{}, {"health_bank_age": 0.5, "empty": float("nan")}]):
        log.on_epoch_end(epoch, {"log_z": 7, "loss": 3 - epoch, **late})
    plot_log(log.path, tmp_path / "log.png")
    assert (tmp_path / "log.png").read_bytes()[:4] == b"\x89PNG"
    curves = {
        axis.get_title(): axis.lines[0].get_xydata()[:, 1].tolist() for axis in saved[0][0].axes
    }
    assert list(curves) == ["loss (lower is better)", "log z", "bank age"]
    assert curves["loss (lower is better)"] == [3, 2]
    assert curves["log z"] == [7, 7]
    assert curves["bank age"][1] == 0.5
    assert saved[0][0].axes[0].lines[0].get_xydata()[:, 0].tolist() == [1, 2]


def test_columns_of_zeros_are_named_and_not_drawn(tmp_path, monkeypatch):
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda *args, **kw: saved.append(args) or save(*args))
    log = LogFile(tmp_path / "log.csv")
    for epoch in range(2):
        zeros = {"health_collapsed": 0, "health_bank_age": 0}
        log.on_epoch_end(epoch, {"val_knn_accuracy": epoch, **zeros})
    plot_log(log.path, tmp_path / "log.png")
    ((figure, _),) = saved
    assert [a.get_title() for a in figure.axes] == ["val knn accuracy (higher is better)"]
    assert figure.get_supxlabel() == "Always 0: collapsed, bank age"
    (tmp_path / "zero.csv").write_text("epoch,loss\n0,0.0\n")
    plot_log(tmp_path / "zero.csv", tmp_path / "zero.png")
    assert len(saved[1][0].axes) == 1


@pytest.mark.parametrize(
    ("text", "match"), [("a,b\n", "without epochs"), ("epoch,loss\n0,nan\n", "without a finite")]
)
def test_a_log_without_epochs_or_numbers_is_rejected(tmp_path, text, match):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=match):
        plot_log(tmp_path / "log.csv", tmp_path / "log.png")
