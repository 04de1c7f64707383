"""Checkpoints of another run are rejected, and the model stays as it was."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from differentiation import numpy
from trainings import BATCH, IMAGES, Stop, as_arrays, as_source, batches, build, build_plain

from instdisc_core.checkpoints import Checkpoints, FolderLock, identity
from instdisc_core.checkpoints.identity import require_same_run
from instdisc_core.data import ArrayBatches, ImageArray

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    ("change", "train", "what"),
    [
        ({"optimizer": keras.optimizers.SGD(0.01, momentum=0.9)}, as_source, "optimizer"),
        ({}, as_arrays, "data"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES).batches(5, 5), epochs=3, **k), "order"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES).batches(BATCH, 6), epochs=3, **k), "order"),
        ({}, lambda m, **k: m.fit(ImageArray(IMAGES[::-1]).batches(4, 5), **k), "data"),
    ],
)
def test_another_run_s_checkpoint_is_rejected_and_the_model_stays(stopped, change, train, what):
    model = build(**change)
    model.build((None, 2, 2, 3))
    before = [numpy(v) for v in model.variables]
    with pytest.raises(ValueError, match=rf"saved.*whose {what} is .*Give fit the {what}"):
        train(model, callbacks=[Checkpoints(stopped / "saved")])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    with FolderLock(stopped / "saved"):
        pass  # it was given back


@pytest.mark.on_one_backend
def test_a_model_of_another_shape_is_rejected(tmp_path):
    as_source(build_plain(), callbacks=[Checkpoints(tmp_path)])
    wider = build_plain()
    wider.projector = keras.layers.Dense(4, use_bias=False)
    with pytest.raises(ValueError, match=r"with 6 variables\. Expected .* 5 variables"):
        as_source(wider, callbacks=[Checkpoints(tmp_path)])


def test_an_error_names_what_differs_first():
    names = ["model", ["a/kernel", [3, 4], "float32"], ["a/bias", [4], "float32"]]
    renamed = ["model", ["b/kernel", [3, 4], "float32"], ["b/bias", [4], "float32"]]
    require_same_run({"model": names}, {"model": renamed}, "x")
    wider = [*renamed[:2], ["b/bias", [5], "float32"]]
    expected = r"model is one with b/bias of shape \(5,\) in float32. Expected one with a/bias of"
    with pytest.raises(ValueError, match=expected):
        require_same_run({"model": names}, {"model": wider}, "x")
    with pytest.raises(ValueError, match=r"is model with 1 variables. Expected model with 2"):
        require_same_run({"model": names}, {"model": wider[:2]}, "x")
    orders = {"batches": 5, "batch_size": 5, "seed": 0}, {"batches": 4, "batch_size": 6, "seed": 0}
    with pytest.raises(
        ValueError, match=r"order is batch_size=5, batches=5. Expected batch_size=6"
    ):
        require_same_run({"order": orders[1]}, {"order": orders[0]}, "x")


def test_the_width_of_indices_and_of_random_states_does_not_matter():
    wide, narrow = (ArrayBatches(IMAGES, np.arange(len(IMAGES), dtype=t)) for t in ("i8", "i4"))
    assert wide.fingerprint == narrow.fingerprint
    ours = build().memory_bank.rejected_indices
    kinds = {identity._kind(SimpleNamespace(dtype=d)) for d in ("int32", "int64", "uint32")}
    assert kinds == {"integers"} == {identity._kind(ours)}
    assert identity._kind(SimpleNamespace(dtype="int8")) == "int8"


@pytest.mark.on_one_backend
def test_steps_that_the_optimizer_did_not_make_are_seen(tmp_path, monkeypatch):
    """A checkpoint that is whole, but whose weights are those of another step."""
    model = build()
    saver = Checkpoints(tmp_path / "saved", 1)
    save = Checkpoints._save
    monkeypatch.setattr(
        Checkpoints, "_save", lambda self, position: save(self, position._replace(step=2))
    )
    with pytest.raises(KeyboardInterrupt):
        as_source(model, callbacks=[saver, Stop(2)])
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"optimizer made 1 steps\. Expected 2"):
        as_source(build(), callbacks=[Checkpoints(tmp_path / "saved", 1)])


class Skip(keras.callbacks.Callback):
    """Takes one step back, as if it had overflowed."""

    def on_epoch_end(self, epoch, logs=None):
        inner = self.model.optimizer.inner_optimizer
        inner._iterations.assign(inner._iterations - 1)


def test_a_resumed_optimizer_may_skip_steps(tmp_path):
    """One that scales the loss counts the steps that it made, not those that it skipped."""
    for epochs in (1, 2):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
        model = build_plain(optimizer)
        model.build((None, 2, 2, 3))
        optimizer.build(model.trainable_variables)
        history = model.fit(
            batches(), epochs=epochs, verbose=0, callbacks=[Skip(), Checkpoints(tmp_path)]
        )
        assert history.epoch == [epochs - 1]
