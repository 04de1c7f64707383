"""What fit checks and takes before Keras trains, and what it leaves as it was."""

import keras
import numpy as np
import pytest
from differentiation import numpy
from trainings import (
    EPOCHS,
    IMAGES,
    STEPS,
    Count,
    N,
    Stop,
    as_arrays,
    as_source,
    batches,
    build,
    build_plain,
)

from instdisc_core.checkpoints import Checkpoints
from instdisc_core.data.batches import ArrayBatches

# Keras reads PyTorch's tensors by NumPy, and pytest.warns shows that warning without its module.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_epochs_are_whole(tmp_path):
    with pytest.raises(ValueError, match="steps_per_epoch=2 with ImageBatches"):
        build().fit(batches(), steps_per_epoch=2, verbose=0)


def test_keras_s_own_backup_finds_a_model_that_is_built(tmp_path):
    model = build()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
    as_source(model, callbacks=[backup])
    again = build()
    again.fit(IMAGES, np.arange(N), epochs=EPOCHS, callbacks=[backup], verbose=0)
    np.testing.assert_array_equal(numpy(again.memory_bank.rows), numpy(model.memory_bank.rows))


def test_a_list_of_callbacks_is_as_it_was_after_fit():
    listed = keras.callbacks.CallbackList(
        [Count()], add_history=True, model=(model := build_plain())
    )
    before = list(listed.callbacks)
    for _ in range(2):
        model.fit(batches(), verbose=0, callbacks=listed)
        assert listed.callbacks == before


def test_batches_are_whole_again_while_the_interrupt_is_still_handled(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        as_source(build_plain(), callbacks=[Checkpoints(tmp_path, 1), Stop(3)])
    again = batches()
    with pytest.raises(KeyboardInterrupt) as held:
        build_plain().fit(again, epochs=2, verbose=0, callbacks=[Checkpoints(tmp_path, 1), Stop(1)])
    assert held.tb is not None
    assert again.start == 0
    assert again.num_batches == STEPS


def test_weights_of_samples_may_be_a_list_and_a_split_is_rejected(tmp_path):
    given = {"verbose": 0, "callbacks": [Checkpoints(tmp_path)]}
    build_plain().fit(IMAGES, list(range(N)), sample_weight=[1.0] * N, **given)
    with pytest.raises(ValueError, match=r"validation_split=0\.2 with Checkpoints"):
        build_plain().fit(IMAGES, np.arange(N), validation_split=0.2, **given)


def test_arrays_and_sources_have_digests_once_for_each_fit(tmp_path, monkeypatch):
    asked = []
    fingerprint = ArrayBatches.fingerprint.fget
    monkeypatch.setattr(
        ArrayBatches, "fingerprint", property(lambda self: asked.append(1) or fingerprint(self))
    )
    as_arrays(build_plain(), callbacks=[Checkpoints(tmp_path, 1)])
    assert len(asked) == 1
