"""NNCLR against the float64 reference, and as a Keras model: fit, evaluate, predict, save, resume.

Steps are compiled in the test against the reference only: compiling takes most of the time.
"""

import warnings

import keras
import numpy as np
import pytest
from differentiation import numpy
from models import TwoViews, runs_eagerly, small_nnclr
from trainings import Stop, assert_equal

from instdisc_core import NNCLR, SupportSet
from instdisc_core.callbacks import KNNEvaluation, NeighborLabels
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.data import ImageArray
from instdisc_core.evaluation import evaluate, retrieve
from instdisc_core.testing import reference
from instdisc_core.testing.strategies import unit_rows

N, DIM, B = 8, 4, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((N, DIM)).astype("float32")
ROWS = unit_rows(RNG, 5, DIM)
KERNEL = RNG.standard_normal((DIM, DIM)).astype("float32")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def linear(name, kernel):
    return keras.layers.Dense(
        DIM, use_bias=False, kernel_initializer=keras.initializers.Constant(kernel), name=name
    )


def plain(support_set=7, compiled=False, **kwargs):
    """A model without batch normalization, whose numbers can be computed by hand."""
    model = small_nnclr(
        linear("encoder", np.eye(DIM)),
        support_set=support_set,
        compiled=compiled,
        projector=keras.layers.Activation("linear"),
        predictor=linear("predictor", KERNEL),
        augmenter=TwoViews(),
        **kwargs,
    )
    model.optimizer.learning_rate = 1.0
    return model


def by_hand(images, rows, temperature=0.1):
    """Loss, and its gradient with respect to the kernels of encoder and predictor."""
    x = images.astype("float64"), images[:, ::-1].astype("float64")
    loss, of_encoder, of_predictor = 0.0, np.zeros((DIM, DIM)), np.zeros((DIM, DIM))
    for one, other in (x, x[::-1]):
        nn = rows[np.argmax(one @ rows.T, axis=1)] if len(rows) else one
        losses, gradient = reference.in_batch_softmax(nn, other @ KERNEL, temperature)
        share = 2 * len(images)
        loss += losses.sum() / share
        of_predictor += other.T @ gradient / share
        of_encoder += other.T @ gradient @ KERNEL.T.astype("float64") / share
    return loss, of_encoder, of_predictor


@pytest.mark.parametrize(("size", "compiled"), [(5, True), (7, False)], ids=["full", "not full"])
def test_a_step_is_the_reference_s(size, compiled):
    """Loss, gradient, and the support set afterwards, from a step of stock fit."""
    model = plain(size, compiled=compiled)
    model.support_set.enqueue(ROWS)
    logs = model.fit(IMAGES[:B], batch_size=B, shuffle=False, verbose=0).history
    expected, of_encoder, of_predictor = by_hand(IMAGES[:B], ROWS)
    np.testing.assert_allclose(logs["loss"], [expected], rtol=1e-5)
    for layer, start, gradient in (
        (model.encoder, np.eye(DIM), of_encoder),
        (model.predictor, KERNEL, of_predictor),
    ):
        np.testing.assert_allclose(numpy(layer.kernel), start - gradient, rtol=1e-4, atol=1e-5)
    queue = np.concatenate([ROWS, IMAGES[:B] / np.linalg.norm(IMAGES[:B], axis=1)[:, None]])
    following = int(numpy(model.support_set.next))
    assert following == (len(ROWS) + B) % size
    held = np.roll(numpy(model.support_set.lookup(np.arange(size))), -following, axis=0)
    np.testing.assert_allclose(held, queue[-size:], atol=1e-6)
    # What only training knows is logged by training alone, in whatever order the two are compiled.
    settings = {"verbose": 0, "batch_size": B}
    evaluated = model.evaluate(IMAGES[:B], np.arange(B), return_dict=True, **settings)
    again = model.fit(IMAGES[:B], validation_data=(IMAGES[:B], np.arange(B)), **settings).history
    of_evaluation = {"loss", "neighbor_agreement"}
    assert set(evaluated) == of_evaluation
    assert set(logs) == of_evaluation | {"neighbor_is_image"}
    assert set(again) == set(logs) | {f"val_{name}" for name in of_evaluation}


def test_an_empty_support_set_is_the_control():
    losses = [
        plain(support_set).fit(IMAGES[:B], batch_size=B, verbose=0).history["loss"]
        for support_set in (7, None)
    ]
    for loss in losses:
        np.testing.assert_allclose(loss, [by_hand(IMAGES[:B], [])[0]], rtol=1e-5)


def test_evaluation_compares_equal_views_and_moves_nothing():
    model = small_nnclr()
    model.fit(IMAGES[:B], batch_size=B, epochs=2, verbose=0)
    before = [numpy(v) for v in model.variables]
    first, second = (model.evaluate(IMAGES[:B], batch_size=B, verbose=0) for _ in range(2))
    assert first == second
    projections, predictions = map(numpy, model.branches(IMAGES[:B], training=False))
    rows = numpy(model.support_set.lookup(np.arange(7)))
    nearest = rows[np.argmax(projections @ rows.T, axis=1)]
    losses, _ = reference.in_batch_softmax(nearest, predictions, 0.1)
    np.testing.assert_allclose(first[0] if isinstance(first, list) else first, losses.mean(), 1e-4)
    for variable, value in zip(model.variables, before, strict=True):
        if "mean" not in variable.path:  # a metric
            np.testing.assert_array_equal(numpy(variable), value, err_msg=variable.path)
    embeddings = model.predict(IMAGES[:B], verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    lengths = np.linalg.norm(projections, axis=1, keepdims=True)
    np.testing.assert_allclose(embeddings, projections / lengths, atol=1e-5)


def test_neighbors_are_from_before_the_step():
    """A batch that is seen twice: only the second time each image finds itself."""
    model = plain(support_set=B, enqueue="first")
    model.optimizer.learning_rate = 0.0
    symmetric = np.concatenate([IMAGES[:B, :2], IMAGES[:B, 1::-1]], axis=1)  # equal views
    logs = model.fit(symmetric, np.arange(10, 14), batch_size=B, epochs=2, shuffle=False, verbose=0)
    logs = logs.history
    assert logs["neighbor_is_image"] == [0, 1]
    assert numpy(model.support_set.image_indices).tolist() == [10, 11, 12, 13]
    agreement = logs["neighbor_agreement"][1]
    t = symmetric / np.linalg.norm(symmetric, axis=1)[:, None]
    p = symmetric @ KERNEL
    best = np.argmax(t @ (p / np.linalg.norm(p, axis=1)[:, None]).T, axis=1)
    assert agreement == pytest.approx(np.mean(best == np.arange(B)))


@pytest.mark.parametrize("enqueue", ["first", "both"])
def test_one_view_or_both_enter_a_support_set_of_any_size(enqueue):
    model = plain(support_set=3, enqueue=enqueue)
    model.fit(IMAGES[:B], batch_size=B, shuffle=False, verbose=0)
    following = int(numpy(model.support_set.next))
    assert following == B * (1 if enqueue == "first" else 2) % 3
    images = np.roll(numpy(model.support_set.image_indices), -following)
    assert images.tolist() == [1, 2, 3]
    rows = np.roll(numpy(model.support_set.lookup(np.arange(3))), -following, axis=0)
    last = IMAGES[1:B] if enqueue == "first" else IMAGES[1:B, ::-1]
    np.testing.assert_allclose(rows, last / np.linalg.norm(last, axis=1)[:, None], atol=1e-6)


def test_targets_are_not_needed():
    def batches():
        while True:
            yield (IMAGES[:B],)

    model = small_nnclr()
    model.build(IMAGES.shape)
    logs = model.fit(batches(), steps_per_epoch=2, verbose=0, shuffle=False).history
    assert "neighbor_is_image" not in logs
    assert "neighbor_agreement" in logs
    assert set(numpy(model.support_set.image_indices)) == {-1}
    with_indices, without = small_nnclr(), small_nnclr()
    for model in (with_indices, without):
        model.build(IMAGES.shape)
    without.set_weights(with_indices.get_weights())
    runs = [
        model.fit(IMAGES, targets, batch_size=B, shuffle=False, verbose=0).history
        for model, targets in ((with_indices, np.arange(N)), (without, None))
    ]
    assert runs[0] == runs[1]
    assert numpy(without.support_set.image_indices).max() == N - 1


@pytest.mark.filterwarnings("ignore:1 images in epoch 1")
def test_an_image_that_is_not_finite_counts_for_nothing():
    model = plain(non_finite="skip")
    model.support_set.enqueue(ROWS[:3])
    images = IMAGES[:B].copy()
    images[1, 0] = np.nan
    loss = model.fit(images, batch_size=B, shuffle=False, verbose=0).history["loss"]
    expected, _, of_predictor = by_hand(np.delete(images, 1, axis=0), ROWS[:3])
    np.testing.assert_allclose(loss, [expected], rtol=1e-5)
    np.testing.assert_allclose(
        numpy(model.predictor.kernel), KERNEL - of_predictor, rtol=1e-4, atol=1e-5
    )
    assert int(numpy(model.support_set.fill)) == 3 + B - 1
    assert numpy(model.support_set.image_indices).tolist() == [-1, -1, -1, 0, 2, 3, -1]


def test_only_images_that_count_are_looked_for_among_their_neighbors():
    model = plain(non_finite="skip")
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=runs_eagerly())
    images = IMAGES[:B].copy()
    images[1:] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "3 images in epoch")
        logs = model.fit(images, batch_size=B, epochs=2, shuffle=False, verbose=0).history
    assert logs["neighbor_is_image"] == [0.0, 1.0]


def test_an_index_that_is_no_image_is_not_its_own_neighbor():
    """As a compiled step may get one: it cannot raise."""
    model = plain(support_set=B)
    own = np.array([-1, 5, 2**31 - 1, 6], "int32")
    z = model.project(IMAGES[:B])
    model.support_set.enqueue(z)  # rows of images that are not known
    both = np.concatenate([z, z])
    _, logged = model.positives(both, keras.ops.convert_to_tensor(own), True, None)
    assert float(numpy(logged["neighbor_is_image"])) == 0
    model.support_set.image_indices.assign(np.array([-1, 5, -1, 6]))
    _, logged = model.positives(both, keras.ops.convert_to_tensor(own), True, None)
    assert float(numpy(logged["neighbor_is_image"])) == 1, "of the two that are images"


def test_a_batch_of_one_image_is_said_to_teach_nothing():
    with pytest.warns(UserWarning, match="a batch of 1 image. Expected at least 2: NNCLR"):
        small_nnclr().fit(IMAGES[:5], batch_size=2, verbose=0)


def test_images_that_are_all_alike_do_no_harm():
    """Batch normalization makes zeros of them, which have no direction and no neighbors."""
    model = small_nnclr(augmenter=keras.layers.Rescaling(1.0))
    loss = model.fit(np.zeros((B, DIM), "float32"), batch_size=B, verbose=0).history["loss"]
    np.testing.assert_allclose(loss, [np.log(B)], rtol=1e-5)
    assert int(numpy(model.support_set.rejected_embeddings)) == B
    assert all(np.all(np.isfinite(numpy(v))) for v in model.trainable_variables)


def test_sample_weights_count_for_both_views():
    weights = np.array([1.0, 0.0, 3.0, 2.0], "float32")
    loss = plain(None).train_on_batch(IMAGES[:B], sample_weight=weights)
    x = IMAGES[:B].astype("float64"), IMAGES[:B, ::-1].astype("float64")
    halves = [reference.in_batch_softmax(a, b @ KERNEL, 0.1)[0] for a, b in (x, x[::-1])]
    expected = np.mean(weights * np.mean(halves, axis=0))
    np.testing.assert_allclose(loss[0] if isinstance(loss, list) else loss, expected, rtol=1e-5)


def with_everything(**kwargs):
    """A model with state of every kind: noise, statistics, dropout, drawn neighbors."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(6), keras.layers.Dropout(0.3, seed=1)]
    )
    return small_nnclr(encoder, top_k=3, enqueue="both", **kwargs)


def test_a_saved_model_continues_as_the_one_that_was_saved(tmp_path):
    source = ImageArray(np.random.default_rng(0).integers(0, 256, (N, 2, 2, 3)).astype("uint8"))
    noise = keras.layers.GaussianNoise(0.5, seed=0)
    model = with_everything(augmenter=keras.Sequential([keras.layers.Rescaling(1 / 255), noise]))
    model.fit(source.batches(B, seed=0), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.top_k, again.enqueue, again.temperature) == (3, "both", 0.1)
    assert again.manifest.fingerprint == source.manifest.fingerprint
    for one in (model, again):
        one.run_eagerly = runs_eagerly()
        one.fit(source.batches(B, seed=0), epochs=2, initial_epoch=1, verbose=0)
    assert_equal(again, model)
    with pytest.raises(ValueError, match="is not the one of the manifest"):
        again.evaluate(ImageArray(np.zeros((N, 2, 2, 3), "uint8")).batches(B), verbose=0)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    def train(folder, stop=0):
        model = with_everything()
        saver = Checkpoints(tmp_path / folder, 1)
        model.fit(IMAGES, batch_size=B, epochs=2, verbose=0, callbacks=[saver, Stop(stop)])
        return model

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", 3)
    assert_equal(train("stopped"), whole)


def test_the_control_and_a_support_set_of_one_s_own_are_saved():
    for support_set in (None, SupportSet(9, DIM, "int8")):
        model = small_nnclr(support_set=support_set)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
        assert again.get_config() == model.get_config()
        assert (again.support_set is None) == (support_set is None)


def test_it_is_evaluated_without_a_bank(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (N, 2, 2, 3)).astype("uint8")
    labels = np.arange(N) % 2
    pixels[labels == 1] //= 8
    train, test = ImageArray(pixels, labels), ImageArray(pixels[::-1].copy(), labels[::-1])
    noise = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.GaussianNoise(0.1)])
    model = small_nnclr(augmenter=noise, preprocessing=keras.layers.Rescaling(1.0))
    watching = [
        KNNEvaluation(train, labels, labels, train_images=train, k=3),
        NeighborLabels(train, labels, k=5),
    ]
    logs = model.fit(train.batches(B, seed=0), epochs=2, verbose=0, callbacks=watching).history
    assert len(logs["val_knn_accuracy"]) == 2
    assert all(0 <= value <= 1 for value in logs["neighbor_label_agreement"])
    report = evaluate(model, train, test.subset([0, 1]), measures=["clustering"], num_clusters=2)
    assert {row["features"] for row in report.rows} == {"embedding"}
    rows = model.predict(train.ordered(), verbose=0)
    assert len(retrieve(rows, train, rows, train, k=3).names()) == N


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 8}, "top_k=8, embedding_dim=4 and 7 rows of width 4.*, at least top_k"),
        ({"support_set": None, "top_k": 2}, "top_k=2.*without one, top_k is 1"),
        ({"support_set": 0}, "capacity=0"),
        ({"support_set": SupportSet(7, 5)}, "7 rows of width 5"),
        ({"enqueue": "second"}, "enqueue='second'. Expected one of 'first', 'both'"),
        ({"augmenter": None}, "no augmenter"),
        ({"dim": 0}, "embedding_dim=0"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=rf"Received: .*{message}"):
        small_nnclr(**settings)


def test_bad_use():
    model = small_nnclr()
    for targets in (np.zeros(N), np.arange(N)[:, None], np.arange(N) - 1):
        with pytest.raises(ValueError, match=r"Received: indices.*Expected"):
            model.fit(IMAGES, targets, verbose=0)
    wide = NNCLR(
        keras.layers.Flatten(), 4, 7, predictor=keras.layers.Dense(5), augmenter=TwoViews()
    )
    with pytest.raises(ValueError, match=r"a predictor whose output has shape \(None, 5\)"):
        wide.build((None, DIM))
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"compile\(loss='mse'\)\. Expected no loss"):
        model.fit(IMAGES, verbose=0)
