"""InstanceDiscrimination as a Keras model: fit, predict, evaluate, save, resume.

Where what is tested is the same in compiled steps and in others, they are not compiled: compiling
takes most of the time. So that one shape is compiled, all batches are of equal length.
"""

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import small_model
from processors import BFLOAT16

from instdisc_core import (
    NCE,
    InfoNCE,
    InstanceDiscrimination,
    MemoryBank,
    NonParametricSoftmax,
    UniformSampler,
    objectives,
)
from instdisc_core.callbacks import KNNEvaluation
from instdisc_core.testing import reference

N, WIDTH, D = 40, 12, 6
OBJECTIVES = ["nce", "non_parametric_softmax", "info_nce", "parametric_softmax"]
RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((4, WIDTH))
LABELS = np.arange(N) % 4
IMAGES = (CENTERS[LABELS] + 0.3 * RNG.standard_normal((N, WIDTH))).astype("float32")
INDICES = np.arange(N)


def small(objective="non_parametric_softmax", **kwargs):
    encoder = keras.Sequential([keras.layers.Dense(16, activation="relu")])
    return small_model(encoder, N, D, objective, optimizer=keras.optimizers.Adam(0.01), **kwargs)


def fit(model, epochs=1, **kwargs):
    kwargs = {"batch_size": N // 2, "verbose": 0, "shuffle": False, **kwargs}
    return model.fit(IMAGES, INDICES, epochs=epochs, **kwargs).history


def state(model):
    return {f"{i} {v.path}": numpy(v) for i, v in enumerate(model.variables)}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_fit_lowers_the_loss_and_evaluate_moves_nothing(name):
    model = small(name)
    losses = fit(model, epochs=20)["loss"]
    assert losses[-1] < 0.9 * losses[0]
    before = state(model)
    first = model.evaluate(IMAGES, INDICES, batch_size=N // 2, verbose=0, return_dict=True)
    second = model.evaluate(IMAGES, INDICES, batch_size=N // 2, verbose=0, return_dict=True)
    assert first == second
    for path, value in state(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_the_first_step_is_the_reference_s():
    """Loss before the bank moves, and the bank after, from one batch of stock fit."""
    model = small(NonParametricSoftmax(0.2))
    embeddings = model.predict(IMAGES, verbose=0)
    rows = numpy(model.memory_bank.rows)
    loss = fit(model, batch_size=N)["loss"][0]
    expected = reference.softmax(embeddings, INDICES, rows, 0.2)[0].mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    moved = reference.update(rows, INDICES, embeddings, 0.5)
    np.testing.assert_allclose(numpy(model.memory_bank.rows), moved, atol=1e-5)


def test_predict_gives_unit_embeddings_whatever_the_batch_size():
    model = small()
    embeddings = model.predict(IMAGES, batch_size=7, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embeddings[:1], model.predict(IMAGES[:1], verbose=0), atol=1e-6)


def test_sample_weights_weigh_the_losses():
    model = small(compiled=False)
    half = model.evaluate(IMAGES, INDICES, batch_size=N, verbose=0, sample_weight=np.full(N, 0.5))
    whole = model.evaluate(IMAGES, INDICES, batch_size=N, verbose=0)
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)


def test_regularizers_of_the_encoder_count():
    encoder = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(1e3))
    plain = keras.layers.Dense(4)
    losses = []
    for layer in (encoder, plain):
        model = small_model(layer, N, D, compiled=False)
        losses.append(model.evaluate(IMAGES, INDICES, verbose=0))
    assert losses[0] > losses[1] + 100


def test_the_augmenter_works_in_training_only():
    augmenter = keras.layers.GaussianNoise(1.0)
    model = small(augmenter=augmenter)
    assert model.predict(IMAGES, verbose=0).tolist() == model.predict(IMAGES, verbose=0).tolist()
    images = keras.ops.convert_to_tensor(IMAGES)
    calm, noisy = numpy(model(images)), numpy(model(images, training=True))
    np.testing.assert_allclose(calm, model.predict(IMAGES, verbose=0), atol=1e-6)
    assert np.abs(calm - noisy).max() > 0.1
    np.testing.assert_array_equal(numpy(images), IMAGES.astype("float64"))


@pytest.mark.parametrize("wrap", [lambda layer: layer, lambda layer: keras.Sequential([layer])])
def test_training_reaches_every_layer_of_the_encoder_and_evaluation_none(wrap):
    norm = keras.layers.BatchNormalization(momentum=0.5)
    model = small_model(wrap(norm), N, D, optimizer=keras.optimizers.SGD(0.0), compiled=False)
    fit(model, batch_size=N)
    np.testing.assert_allclose(numpy(norm.moving_mean), IMAGES.mean(axis=0) / 2, atol=1e-5)
    model.evaluate(IMAGES, INDICES, verbose=0)
    np.testing.assert_allclose(numpy(norm.moving_mean), IMAGES.mean(axis=0) / 2, atol=1e-5)


def test_log_z_is_logged_where_there_is_one():
    assert "log_z" not in fit(small(compiled=False))
    model = small(NCE(16, 0.2, seed=0), compiled=False)
    logged = fit(model, epochs=2)["log_z"]
    assert np.all(np.isfinite(logged))
    evaluated = model.evaluate(IMAGES, INDICES, verbose=0, return_dict=True)["log_z"]
    np.testing.assert_allclose(evaluated, numpy(model.objective.partition.log_z), rtol=1e-5)


def test_validation_data_is_evaluated():
    history = fit(small(compiled=False), epochs=2, validation_data=(IMAGES[:8], INDICES[:8]))
    assert len(history["val_loss"]) == 2


def test_validation_data_are_checked_before_the_first_step():
    model = small(compiled=False)
    fit(model)
    before = state(model)
    for indices, message in (([0, N], "indices from 0 to"), ([0.5, 1], "indices of dtype")):
        with pytest.raises(ValueError, match=message):
            fit(model, validation_data=(IMAGES[:2], np.array(indices)))
    for name, value in state(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_the_best_weights_are_not_restored_without_the_rows():
    best = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    fit(small(compiled=False), callbacks=[best])
    with pytest.raises(ValueError, match=r"restore_best_weights=True.*save_best_only=True"):
        fit(small(compiled=False, bank_storage="host"), callbacks=[best])


def test_knn_evaluation_adds_to_the_logs():
    model = small(NonParametricSoftmax(0.2), compiled=False)
    bank = KNNEvaluation(IMAGES, LABELS, LABELS, k=5)
    assert len(fit(model, epochs=3, callbacks=bank)["val_knn_accuracy"]) == 3
    fresh = KNNEvaluation(IMAGES, LABELS, LABELS, train_images=IMAGES, k=5, every=2)
    history = fit(model, epochs=3, callbacks=[fresh])
    assert len(history["val_knn_accuracy"]) == 1
    assert history["val_knn_accuracy"][-1] > 0.9


def test_a_seed_repeats_a_run():
    histories = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        model = small(NCE(8, 0.2, seed=2), compiled=False)
        histories.append(fit(model, epochs=3, shuffle=True)["loss"])
    assert histories[0] == histories[1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_saved_model_is_equal_and_trains_on_equally(name, tmp_path):
    objective = NCE(8, 0.2, sampler=UniformSampler(True, seed=1)) if name == "nce" else name
    augmenter = keras.Sequential([keras.layers.GaussianNoise(0.1, seed=3)])
    model = small(objective, augmenter=augmenter, compiled=name == "nce")
    fit(model, epochs=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for (path, value), again in zip(state(model).items(), state(loaded).values(), strict=True):
        np.testing.assert_array_equal(again, value, err_msg=path)
    loaded.run_eagerly = model.run_eagerly
    np.testing.assert_array_equal(
        loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )
    assert fit(loaded, epochs=3) == fit(model, epochs=3)


def test_weights_restore_the_random_streams_too(tmp_path):
    model = small(NCE(8, 0.2, seed=1), compiled=False)
    fit(model)
    model.save_weights(tmp_path / "model.weights.h5")
    kept = state(model)
    fit(model, epochs=2)
    model.load_weights(tmp_path / "model.weights.h5")
    for path, value in state(model).items():
        np.testing.assert_array_equal(value, kept[path], err_msg=path)


def test_the_optimizer_is_saved_under_a_name_that_every_backend_knows():
    model = small()
    config = model.get_compile_config()
    assert config["optimizer"]["module"] == "keras.optimizers"
    assert config["jit_compile"] == "auto"


def test_backup_and_restore_resumes_as_if_never_stopped(tmp_path):
    whole = fit(small(NCE(8, 0.2, seed=1), compiled=False), epochs=4)["loss"]

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    keras.utils.set_random_seed(0)
    stopped = small(NCE(8, 0.2, seed=1), compiled=False)
    stopped.build(IMAGES.shape)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, epochs=4, callbacks=[backup, Stop()])
    keras.utils.set_random_seed(99)
    again = small(NCE(8, 0.2, seed=1), compiled=False)
    again.build(IMAGES.shape)
    resumed = fit(again, epochs=4, callbacks=[backup])["loss"]
    np.testing.assert_allclose(resumed, whole[2:], rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", BFLOAT16])
def test_mixed_precision_leaves_the_bank_and_the_loss_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small(NCE(8, 0.07, seed=0))
        losses = fit(model, epochs=15)["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0]
    assert keras.backend.standardize_dtype(model.memory_bank.rows.dtype) == "float32"
    embeddings = model.predict(IMAGES, verbose=0)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(numpy(model.memory_bank.rows), axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [*(pytest.param(d, marks=pytest.mark.on_one_backend) for d in ("bfloat16", "float16")), "int8"],
)
def test_a_bank_in_less_memory_trains_and_is_saved(dtype, tmp_path):
    model = small(InfoNCE(16, 0.2, seed=0), bank_dtype=dtype)
    knn = KNNEvaluation(IMAGES, LABELS, LABELS, k=5)
    history = fit(model, epochs=15, callbacks=[knn])
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["val_knn_accuracy"][-1] > 0.9
    assert keras.backend.standardize_dtype(model.memory_bank.rows.dtype) == dtype
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    everything = np.arange(len(IMAGES))
    np.testing.assert_array_equal(
        numpy(loaded.memory_bank.lookup(everything)), numpy(model.memory_bank.lookup(everything))
    )
    np.testing.assert_allclose(
        fit(loaded, epochs=2)["loss"], fit(model, epochs=2)["loss"], rtol=1e-5
    )


def test_the_memory_bank_searches_for_what_was_predicted():
    model = small(NonParametricSoftmax(0.2), compiled=False)
    fit(model, epochs=4)
    _, neighbors = model.memory_bank.search(model.predict(IMAGES, verbose=0), k=5)
    neighbors = keras.ops.convert_to_numpy(neighbors)
    assert np.mean(LABELS[neighbors] == LABELS[:, None]) > 0.9


def test_what_the_model_was_made_with_is_in_its_file(tmp_path):
    projector = keras.Sequential(
        [keras.layers.BatchNormalization(), keras.layers.Dense(D, use_bias=False)]
    )
    model = small("nce", momentum=0.9, bank_dtype="float16", projector=projector, compiled=False)
    fit(model)
    assert np.any(numpy(projector.layers[0].moving_mean) != 0), "the projector was not in training"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.memory_bank.get_config() == model.memory_bank.get_config()
    assert loaded.memory_bank.momentum == 0.9
    assert [type(x) for x in loaded.projector.layers] == [type(x) for x in projector.layers]


def test_a_subclass_keeps_its_own_weights(tmp_path):
    class Scaled(InstanceDiscrimination):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.scale = self.add_weight(shape=(), name="scale")

    def make():
        return Scaled(keras.layers.Dense(4), N, D, NCE(4, seed=0), seed=0)

    model, again = make(), make()
    for each in (model, again):
        each.build(IMAGES.shape)
    model.scale.assign(7.0)
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    assert float(numpy(again.scale)) == 7.0


def test_an_encoder_of_two_inputs():
    left, right = keras.Input((5,), name="a"), keras.Input((7,), name="b")
    encoder = keras.Model({"a": left, "b": right}, keras.layers.Concatenate()([left, right]))
    model = small_model(encoder, N, D, compiled=False)
    images = {"a": IMAGES[:, :5], "b": IMAGES[:, 5:]}
    assert np.isfinite(model.fit(images, INDICES, N, verbose=0).history["loss"][0])


def test_it_is_called_as_a_keras_model_is():
    model = small(compiled=False)
    model.fit(IMAGES, INDICES.tolist(), 16, 1, 0)
    callbacks = keras.callbacks.CallbackList([], model=model, add_history=True)
    model.fit(IMAGES, INDICES, callbacks=callbacks, verbose=0)
    assert np.isfinite(model.evaluate(IMAGES, INDICES.tolist(), 16, 0))


def test_a_column_of_sample_weights():
    model, weights = small(compiled=False), np.linspace(0, 1, N).astype("float32")
    flat = model.test_on_batch(IMAGES, INDICES, sample_weight=weights)
    column = model.test_on_batch(IMAGES, INDICES, sample_weight=weights[:, None])
    np.testing.assert_allclose(column, flat, rtol=1e-6)


def test_parts_are_what_the_arguments_say():
    projector = keras.layers.Dense(D, use_bias=False)
    model = small("nce", projector=projector, momentum=0.25, bank_dtype="float16")
    assert isinstance(model.memory_bank, MemoryBank)
    assert model.memory_bank.momentum == 0.25
    assert model.projector is projector
    assert isinstance(model.objective, NCE)
    given = objectives.get("info_nce")
    assert small(given).objective is given
