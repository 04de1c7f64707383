"""PIC against dense steps in float64, and as a Keras model: fit, evaluate, save, resume."""

import keras
import numpy as np
import pytest
from differentiation import by_differences, numpy
from models import TwoViews, runs_eagerly, small_pic
from trainings import Stop, assert_equal

from instdisc_core import PIC
from instdisc_core.checkpoints import Checkpoints
from instdisc_core.data import ImageArray, SlidingWindow
from instdisc_core.evaluation import evaluate
from instdisc_core.testing import reference

N, DIM, B, K = 8, 4, 3, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((N, DIM)).astype("float32")
START = RNG.standard_normal((DIM, DIM)).astype("float32")
TAU, DECAY = 0.2, 0.01
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class ByHand:
    """The same training with dense steps, in float64, with gradients by differences."""

    def __init__(self, rates, views=1):
        self.kernel, self.rates, self.views = START.astype("float64"), list(rates), views
        self.recent = []

    def begin(self, model):
        self.w = numpy(model.class_weights.lookup(np.arange(N)))
        self.u = np.zeros_like(self.w)

    def loss(self, kernel, w, images, indices, classes, weights):
        views = [images, images[:, ::-1]][: self.views]
        targets = [classes.index(i) for i in indices]
        losses = [reference.cosine_softmax(x @ kernel, w[classes], targets, TAU) for x in views]
        return np.mean(weights * np.mean(losses, axis=0))

    def step(self, images, indices, weights=1.0):
        classes = list(dict.fromkeys([*indices, *self.recent]))
        what = images.astype("float64"), list(indices), classes, weights
        loss = self.loss(self.kernel, self.w, *what)
        of_kernel = by_differences(lambda k: self.loss(k, self.w, *what), self.kernel)
        of_w = by_differences(lambda w: self.loss(self.kernel, w, *what), self.w)
        rate = self.rates.pop(0)
        self.w, self.u = reference.sgd(self.w, self.u, of_w, 2 * rate, 0.9, DECAY)
        self.kernel = self.kernel - rate * of_kernel
        self.recent = classes[:K]
        return loss


def plain(rates, compiled=False, **kwargs):
    """A model whose numbers can be computed by hand, with a learning rate for each step."""
    encoder = keras.layers.Dense(
        DIM, use_bias=False, kernel_initializer=keras.initializers.Constant(START)
    )
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(range(len(rates) - 1), rates)
    return small_pic(
        encoder,
        N,
        DIM,
        optimizer=keras.optimizers.SGD(schedule),
        compiled=compiled,
        recent_negatives=K,
        weight_decay=DECAY,
        rate_factor=2.0,
        projector=keras.layers.Activation("linear"),
        **kwargs,
    )


RATES = [0.1, 0.3, 0.02, 0.2, 0.05, 0.1]


@pytest.mark.parametrize("views", [1, 2])
def test_steps_are_those_of_a_dense_classifier(views):
    """Compiled, with a learning rate that changes, and images that are twice in a batch."""
    model = plain(RATES, True, views=views, augmenter=TwoViews() if views == 2 else None)
    by_hand = ByHand(RATES, views)
    by_hand.begin(model)
    for indices in ([0, 1, 2], [3, 4, 3], [0, 5, 6], [1, 1, 1], [7, 2, 5], [6, 0, 4]):
        loss = model.train_on_batch(IMAGES[indices], np.array(indices), return_dict=True)["loss"]
        model.reset_metrics()
        assert float(loss) == pytest.approx(by_hand.step(IMAGES[indices], indices), rel=1e-4)
        rows = numpy(model.class_weights.lookup(np.arange(N)))
        np.testing.assert_allclose(rows, by_hand.w, atol=1e-5)
        np.testing.assert_allclose(numpy(model.encoder.kernel), by_hand.kernel, atol=1e-5)
        found = [i for i in numpy(model.recent).astype(int).tolist() if i >= 0]
        assert found == by_hand.recent
    assert len(by_hand.recent) == K


def test_a_learning_rate_that_a_callback_sets_is_used():
    model = small_pic(optimizer=keras.optimizers.SGD(0.5), compiled=True, n=N, weight_decay=0.0)
    callback = keras.callbacks.LearningRateScheduler(lambda epoch: [0.1, 0.0][epoch])
    model.fit(IMAGES, np.arange(N), batch_size=B, epochs=1, verbose=0)
    rows = [numpy(model.class_weights.rows)]
    for epoch in (0, 1):
        model.fit(
            IMAGES,
            np.arange(N),
            batch_size=B,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=[callback],
        )
        rows.append(numpy(model.class_weights.lookup(np.arange(N))))
    assert np.abs(rows[1] - rows[0]).max() > 1e-3
    np.testing.assert_array_equal(rows[2], rows[1])


def test_sample_weights_are_factors_of_the_loss():
    model, weights = plain(RATES), np.array([1.0, 0.0, 3.0], "float32")
    by_hand = ByHand(RATES)
    by_hand.begin(model)
    loss = model.train_on_batch(IMAGES[:B], np.arange(B), weights, return_dict=True)["loss"]
    expected = by_hand.step(IMAGES[:B], [0, 1, 2], weights.astype("float64"))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(
        numpy(model.class_weights.lookup(np.arange(N))), by_hand.w, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:[13] images in epoch 1")
@pytest.mark.parametrize("wrong", [[1], [0, 1, 2]])
def test_an_image_that_is_not_finite_counts_for_nothing(wrong):
    model, by_hand = plain(RATES, non_finite="skip"), ByHand(RATES)
    by_hand.begin(model)
    images = IMAGES[:B].copy()
    images[wrong, 0] = np.nan
    loss = model.fit(images, np.arange(B), batch_size=B, shuffle=False, verbose=0)
    loss, right = loss.history["loss"][0], np.setdiff1d(np.arange(B), wrong)
    if len(right):
        assert loss == pytest.approx(by_hand.step(IMAGES[right], right.tolist()), rel=1e-4)
    else:
        assert loss == 0
        by_hand.w, by_hand.u = reference.sgd(by_hand.w, by_hand.u, 0 * by_hand.w, 0.2, 0.9, DECAY)
    found = [i for i in numpy(model.recent).astype(int).tolist() if i >= 0]
    assert found == by_hand.recent
    np.testing.assert_allclose(numpy(model.encoder.kernel), by_hand.kernel, atol=1e-5)
    np.testing.assert_allclose(
        numpy(model.class_weights.lookup(np.arange(N))), by_hand.w, atol=1e-5
    )


def test_an_index_without_a_row_is_reported_at_the_end_of_the_epoch():
    """In eager execution on a CPU the step itself raises."""

    def batches():
        while True:
            yield IMAGES[:2], np.array([0, 99])

    with pytest.raises(ValueError, match=r"Received: (1 instance indices|indices from 0 to 99)"):
        small_pic(n=N, compiled=True).fit(batches(), steps_per_epoch=1, verbose=0, shuffle=False)


def test_evaluation_moves_nothing():
    model = small_pic(n=N)
    model.fit(IMAGES, np.arange(N), batch_size=B, epochs=2, verbose=0)
    before = [numpy(v) for v in model.variables]
    first, second = (
        model.evaluate(IMAGES, np.arange(N), batch_size=N, verbose=0) for _ in range(2)
    )
    assert first == second
    embeddings = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    w = numpy(model.class_weights.lookup(np.arange(N)))
    expected = reference.cosine_softmax(embeddings, w, np.arange(N), TAU).mean()
    assert first == pytest.approx(expected, rel=1e-4)
    for variable, value in zip(model.variables, before, strict=True):
        if "loss" not in variable.path:  # a metric
            np.testing.assert_array_equal(numpy(variable), value, err_msg=variable.path)


PIXELS = RNG.integers(0, 256, (N, 2, 2, 3)).astype("uint8")


def with_everything():
    keras.utils.set_random_seed(0)
    noise = keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.GaussianNoise(0.5, seed=0)]
    )
    return small_pic(n=N, views=2, augmenter=noise)


def batches(**kwargs):
    return ImageArray(PIXELS).batches(B, 0, sliding_window=SlidingWindow(6, 2), **kwargs)


def test_a_saved_model_continues_as_the_one_that_was_saved(tmp_path):
    model = with_everything()
    model.fit(batches(), epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    names = ("num_instances", "recent_negatives", "temperature", "rate_factor", "weight_decay")
    ours, theirs = model.get_config(), again.get_config()
    assert {name: theirs[name] for name in names} == {name: ours[name] for name in names}
    assert again.manifest.fingerprint == ImageArray(PIXELS).manifest.fingerprint
    for one in (model, again):
        one.run_eagerly = runs_eagerly()
        one.fit(batches(), epochs=3, initial_epoch=2, verbose=0)
    assert_equal(again, model)
    with pytest.raises(ValueError, match=r"5 images\. Expected 8, one for each row of the class"):
        again.evaluate(ImageArray(PIXELS[:5]).batches(B), verbose=0)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    def train(folder, stop=0, **kwargs):
        model = with_everything()
        saver = Checkpoints(tmp_path / folder, 1)
        model.fit(batches(**kwargs), epochs=3, verbose=0, callbacks=[saver, Stop(stop)])
        return model

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("stopped", 5)
    other = ImageArray(PIXELS).batches(B, 0, sliding_window=SlidingWindow(4, 2))
    with pytest.raises(ValueError, match="whose order is"):
        with_everything().fit(
            other, epochs=3, verbose=0, callbacks=[Checkpoints(tmp_path / "stopped", 1)]
        )
    assert_equal(train("stopped"), whole)


@pytest.mark.on_one_backend
def test_it_learns_to_tell_images_apart_and_is_evaluated():
    labels = np.arange(N) % 2
    source = ImageArray(PIXELS, labels)
    model = small_pic(n=N, optimizer=keras.optimizers.SGD(0.3, momentum=0.9))
    losses = model.fit(source.batches(4, seed=0), epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[1]
    test = ImageArray(255 - PIXELS[:2], labels[:2])
    report = evaluate(model, source, test, measures=["clustering"], num_clusters=2)
    assert {row["features"] for row in report.rows} == {"embedding"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"recent_negatives": 0}, "recent_negatives=0"),
        ({"rate_factor": -1.0}, "rate_factor=-1.0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"n": 0}, "num_instances=0"),
        ({"views": 2}, "no augmenter"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=rf"Received: .*{message}"):
        small_pic(**settings)


def test_bad_use():
    model = small_pic(n=N)
    for targets in (np.zeros(N), np.arange(N)[:, None], np.arange(N) + 1):
        with pytest.raises(ValueError, match=r"Received: indices.*Expected"):
            model.fit(IMAGES, targets, verbose=0)
    with pytest.raises(ValueError, match="no targets"):
        small_pic(n=N).fit(IMAGES, verbose=0)
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"compile\(loss='mse'\)\. Expected no loss"):
        model.fit(IMAGES, np.arange(N), verbose=0)


def test_an_optimizer_that_does_not_step_as_the_weights_do():
    optimizers = {
        "optimizer with gradient_accumulation_steps=4": keras.optimizers.SGD(
            0.1, gradient_accumulation_steps=4
        )
    }
    if hasattr(keras.optimizers, "MultiOptimizer"):
        rates = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {})
        optimizers["MultiOptimizer"] = keras.optimizers.MultiOptimizer(rates)
    for received, optimizer in optimizers.items():
        model = small_pic(n=N, optimizer=optimizer)
        with pytest.raises(ValueError, match=rf"Received: an? {received}\. Expected"):
            model.fit(IMAGES, np.arange(N), verbose=0)


def test_a_window_that_begins_again_is_said_to_do_so():
    model = small_pic(n=N)
    source = ImageArray(RNG.integers(0, 256, (N, 2, 2, 3), "uint8"))
    batches = source.batches(B, seed=0, sliding_window=SlidingWindow(4, 2))
    model.fit(batches, epochs=2, verbose=0)
    with pytest.warns(UserWarning, match=r"fit from epoch 0 of a SlidingWindow.*initial_epoch=2"):
        model.fit(batches, epochs=1, verbose=0)
    model.fit(batches, epochs=4, initial_epoch=3, verbose=0)
    model.fit(source.batches(B, seed=0), verbose=0)
    with pytest.raises(ValueError, match=r"batches of a SlidingWindow.*every image is once"):
        model.evaluate(batches, verbose=0)
    assert np.isfinite(model.evaluate(source.batches(B), verbose=0))


def test_by_default_it_has_a_hidden_layer_and_as_many_negatives_as_there_are_images():
    model = PIC(keras.layers.Flatten(), 100)
    model.build((None, 2, 2, 3))
    assert [v.shape[-1] for v in model.projector.trainable_variables if len(v.shape) == 2] == [
        2048,
        128,
    ]
    assert model.recent.shape == (100,)
