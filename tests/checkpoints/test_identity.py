"""Checkpoints of another run are rejected, and the model stays as it was."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from trainings import BATCH, IMAGES, Stop, as_arrays, as_source, batches, build, build_plain

from instdisc_core.checkpoints import Checkpoints, FolderLock
from instdisc_core.data import ImageArray

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
    with pytest.raises(ValueError, match="whose model is"):
        as_source(wider, callbacks=[Checkpoints(tmp_path)])


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
