"""What BankHealth logs, remembers and leaves alone."""

import warnings
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from differentiation import numpy
from small_model import Constant, images, model_of

from instdisc_core import MemoryBank, NonParametricSoftmax, health
from instdisc_core.callbacks import BankHealth
from instdisc_core.data import ImageArray


def test_a_run_is_the_same_with_it_and_without_and_everything_is_logged():
    settings = {"batch_size": 8, "epochs": 3, "verbose": 0, "shuffle": False}
    watched, alone = model_of(compiled=True), model_of(compiled=True)
    callbacks = [BankHealth(images())]
    logs = watched.fit(images(), np.arange(16), callbacks=callbacks, **settings).history
    alone.fit(images(), np.arange(16), **settings)
    for ours, theirs in zip(watched.variables, alone.variables, strict=True):
        np.testing.assert_array_equal(numpy(ours), numpy(theirs))

    every = "log_z log_z_exact bank_age uniformity alignment effective_rank positive_rank collapsed"
    for name in every.split():
        assert len(logs[f"health_{name}"]) == 3, name
        assert np.all(np.isfinite(logs[f"health_{name}"])), name
    assert len(logs["health_neighbor_agreement"]) == 2
    assert logs["health_bank_age"] == [0, 0, 0]
    assert logs["health_collapsed"] == [0, 0, 0]
    f, v = watched.predict(images(), verbose=0), numpy(watched.memory_bank.rows)
    log_z = np.log(np.mean(np.sum(np.exp(f @ v.T / 0.5), axis=1)))
    assert logs["health_log_z_exact"][-1] == pytest.approx(log_z, abs=1e-4)
    assert logs["health_log_z"][-1] == pytest.approx(logs["log_z"][-1], abs=0.5)
    assert logs["health_effective_rank"][-1] == pytest.approx(health.effective_rank(f), abs=1e-3)


def test_rows_that_nothing_moves_grow_old():
    logs = model_of(NonParametricSoftmax(0.5)).fit(
        images()[:8], np.arange(8), epochs=3, verbose=0, callbacks=[BankHealth(images())]
    )
    assert logs.history["health_bank_age"] == [0.5, 1.0, 1.5]


def test_another_fit_knows_nothing_of_the_one_before():
    model, watch = model_of(NonParametricSoftmax(0.5)), BankHealth(images())
    for _ in range(2):
        settings = {"epochs": 2, "verbose": 0, "callbacks": [watch]}
        logs = model.fit(images()[:8], np.arange(8), **settings).history
        assert len(logs["health_neighbor_agreement"]) == 1
        assert logs["health_bank_age"] == [0.5, 1.0]


class Moving:
    """A model whose bank and embeddings are set by hand: no neighbors that rounding could swap."""

    augmenter, objective = None, NonParametricSoftmax(0.5)

    def __init__(self, rows):
        self.memory_bank = MemoryBank(*np.shape(rows))
        self.rows = np.array(rows, "float32")

    def predict(self, images, batch_size, verbose):
        return self.rows

    def preserved_random_states(self):
        return nullcontext()

    def epoch(self, watch, epoch):
        """One epoch, in which two rows change places: the logs at its end."""
        watch.on_epoch_begin(epoch)
        self.rows[[epoch, epoch + 1]] = self.rows[[epoch + 1, epoch]]
        self.memory_bank.rows.assign(self.rows)
        logs = {}
        watch.on_epoch_end(epoch, logs)
        return logs


ANGLES = np.sqrt(np.arange(8))


SPIRAL = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def watched(epochs, every, state=None, bank=SPIRAL):
    """The logs of these epochs, and state and bank at their end, of a run or of the rest of one."""
    model = Moving(bank)
    model.memory_bank.rows.assign(model.rows)
    watch = BankHealth(images(8), k=2, every=every)
    watch.set_model(model)
    watch.on_train_begin()
    if state is not None:
        watch.set_state(state)
    return [model.epoch(watch, epoch) for epoch in epochs], watch.get_state(), model.rows


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_logs_what_a_whole_one_logs(every, stop, tmp_path):
    """Ages count from the start, and the look before the stop is remembered, through a file."""
    whole, _, _ = watched(range(5), every)
    first, state, bank = watched(range(stop), every)
    np.savez(tmp_path / "state.npz", **state)
    with np.load(tmp_path / "state.npz") as stored:
        rest, _, _ = watched(range(stop, 5), every, dict(stored), bank)
    forgetful, _, _ = watched(range(stop, 5), every, None, bank)
    assert first + rest == whole
    assert first + forgetful != whole
    assert whole[every - 1]["health_bank_age"] == {1: 0.75, 2: 1.375}[every]


def test_in_fit_too_a_resumed_run_logs_what_a_whole_one_logs():
    """The state passes from one fit to the next when the second begins, as a checkpoint does it."""
    settings = {"verbose": 0, "shuffle": False, "batch_size": 8}
    data = images()[:8], np.arange(8)

    class Restore(keras.callbacks.Callback):
        def __init__(self, watch, state):
            super().__init__()
            self.watch, self.state = watch, state

        def on_train_begin(self, logs=None):
            self.watch.set_state(self.state)

    def run(model, watch, epochs, start=0, state=None):
        callbacks = [watch] if state is None else [watch, Restore(watch, state)]
        more = {"epochs": epochs, "initial_epoch": start, "callbacks": callbacks}
        return model.fit(*data, **settings, **more).history

    whole = run(model_of(NonParametricSoftmax(0.5)), BankHealth(images()), 4)
    model, watch = model_of(NonParametricSoftmax(0.5)), BankHealth(images())
    first = run(model, watch, 2)
    rest = run(model, BankHealth(images()), 4, 2, watch.get_state())
    assert whole["health_bank_age"] == [0.5, 1.0, 1.5, 2.0]
    assert first.keys() == rest.keys() == whole.keys()
    for name, values in whole.items():
        assert len(first[name]) + len(rest[name]) == len(values), name
        if name not in ("health_positive_rank", "health_neighbor_agreement"):  # they have jumps
            assert first[name] + rest[name] == pytest.approx(values, rel=1e-4, abs=1e-4), name


def test_the_state_before_anything_was_seen_and_that_of_another_sample():
    watch, again = BankHealth(images(8), k=2), BankHealth(images(8), k=2)
    assert set(watch.get_state()) == {"indices", "k", "warned"}
    again.set_model(Moving(SPIRAL))
    again.on_train_begin()
    again.set_state(watch.get_state())
    again.on_epoch_begin(3)
    assert again.get_state()["moved"].tolist() == [2] * 8
    for other in (BankHealth(images(8), k=3), BankHealth(images(8)[:7], k=2)):
        with pytest.raises(ValueError, match=r"Expected the same 8 images and k=2 as here"):
            again.set_state(other.get_state())
    state = again.get_state()
    state["rows"][:] = 7
    assert np.all(again.get_state()["rows"] < 7), "a copy, which later epochs leave alone"


def test_one_measurement_by_hand():
    """Eight images, of which one is embedded on the far side of its own row."""
    model, seen = Moving(SPIRAL), []

    def augment(views, training):
        seen.append((len(views), training))
        return views

    def predict(views, batch_size, verbose):
        seen.append((len(views), batch_size))
        return np.concatenate([model.rows[:7], -model.rows[7:]])

    model.memory_bank.rows.assign(model.rows)
    model.augmenter, model.predict = augment, predict
    watch, logs = BankHealth(images(8), k=3, batch_size=3), {}
    watch.set_model(model)
    watch.on_epoch_begin(0)
    watch.on_epoch_end(0, logs)
    view = [(3, True), (3, True), (2, True), (8, 3)]
    assert seen == [(8, 3), *view, *view]
    assert logs["health_alignment"] == 0
    assert logs["health_positive_rank"] == 1, "the median of seven times 1 and once 8"
    assert watch.get_state()["neighbors"].shape == (8, 3)


def test_the_sample_is_spread_over_the_images_and_keeps_their_indices():
    indices = np.arange(16)[::-1]
    for data in (images(), ImageArray((255 * images()).astype("uint8"))):
        watch = BankHealth(data, indices, sample=4)
        assert watch.indices.tolist() == [15, 10, 5, 0]
        whole = data.images() if isinstance(data, ImageArray) else data
        np.testing.assert_array_equal(watch.images, whole[[0, 5, 10, 15]])
    assert BankHealth(images()).indices.tolist() == list(range(16))


def test_it_measures_in_every_so_many_epochs():
    logs = model_of().fit(
        images(), np.arange(16), epochs=4, verbose=0, callbacks=[BankHealth(images(), every=2)]
    )
    assert len(logs.history["health_uniformity"]) == 2


def test_a_collapse_is_named_once():
    model = model_of(projector=Constant())
    watch = [BankHealth(images())]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", "Collapse")
        logs = model.fit(images(), np.arange(16), epochs=2, verbose=0, callbacks=watch)
        again = BankHealth(images())
        again.set_model(model)
        again.set_state(watch[0].get_state())
        again.on_epoch_begin(2)
        again.on_epoch_end(2, {})
    assert [str(w.message)[:46] for w in seen] == ["Collapse after epoch 1: all embeddings are ali"]
    assert logs.history["health_collapsed"] == [1, 1]


def test_wrong_numbers_of_images_and_indices_are_rejected():
    with pytest.raises(ValueError, match="15 indices of 16 images"):
        BankHealth(images(), np.arange(15))
    with pytest.raises(ValueError, match=r"1 images\. Expected at least 2"):
        BankHealth(images(1))
    with pytest.raises(ValueError, match="sample=0"):
        BankHealth(images(), sample=0)
