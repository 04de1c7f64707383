"""One small model of each method, and their parts, where it does not matter what is trained."""

import keras
import numpy as np

from instdisc_core import NNCLR, PIC, InstanceDiscrimination, MemoryBank
from instdisc_core.heads import prediction_head, projection_head

SIZE, DIM = 10, 4  # images, and numbers in each embedding
UNIT = np.eye(DIM, dtype="float32")[:3]  # embeddings of three of them


def runs_eagerly(compiled=False):
    """The argument ``run_eagerly`` of ``compile``, for a test that asks for compiled steps or not.

    TensorFlow takes seconds to compile a step. JAX compiles a whole one faster than the operations
    of an eager one, and has it in its cache where another test has compiled it.
    """
    return not compiled and keras.backend.backend() != "jax"


def small_model(
    encoder=None,
    n=SIZE,
    dim=DIM,
    objective="non_parametric_softmax",
    *,
    optimizer=None,
    compiled=True,
    **kwargs,
):
    """An ``InstanceDiscrimination`` model of ``n`` images of any shape, ready for ``fit``.

    Its weights come from the global random state, which ``conftest.py`` sets before every test.
    ``compiled=False`` where it does not matter whether steps are compiled; see ``runs_eagerly``.
    """
    if encoder is None:
        encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    model = InstanceDiscrimination(encoder, n, dim, objective, seed=0, **kwargs)
    model.compile(optimizer or keras.optimizers.SGD(0.1), run_eagerly=runs_eagerly(compiled))
    return model


def small_nnclr(encoder=None, dim=DIM, support_set=7, *, compiled=False, **kwargs):
    """An ``NNCLR`` model of images of any shape, ready for ``fit``; see ``small_model``."""
    if encoder is None:
        encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    parts = {
        "projector": projection_head(dim, (5,)),
        "predictor": prediction_head(dim, (5,)),
        "augmenter": keras.layers.GaussianNoise(0.5, seed=0),
    }
    model = NNCLR(encoder, dim, support_set, seed=0, **{**parts, **kwargs})
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=runs_eagerly(compiled))
    return model


def small_pic(encoder=None, n=SIZE, dim=DIM, *, optimizer=None, compiled=False, **kwargs):
    """A ``PIC`` model of ``n`` images of any shape, ready for ``fit``; see ``small_model``."""
    if encoder is None:
        encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    parts = {"projector": projection_head(dim, (5,), normalized=False), "recent_negatives": 5}
    model = PIC(encoder, n, dim, seed=0, **{**parts, **kwargs})
    model.compile(optimizer or keras.optimizers.SGD(0.1), run_eagerly=runs_eagerly(compiled))
    return model


def bank_of(rows, **kwargs):
    """A bank with these rows."""
    bank = MemoryBank(*rows.shape, **kwargs)
    bank.rows.assign(rows)
    return bank


@keras.saving.register_keras_serializable("tests")
class TwoViews(keras.layers.Layer):
    """Of two views of a batch, the second one has its pixels in reverse order."""

    def call(self, images, training=False):
        second = keras.ops.arange(keras.ops.shape(images)[0]) >= keras.ops.shape(images)[0] // 2
        return keras.ops.where(second[:, None], keras.ops.flip(images, axis=1), images)


class Shared:
    """A model whose steps are compiled once, for tests that each start from its first state.

    Args:
        model: compiled, and trained by no test yet.
        shape: of its batches of images, ``(None, ...)``.
    """

    def __init__(self, model, shape):
        model.build(shape)
        model.optimizer.build(model.trainable_variables)
        self.model = model
        self._variables = [*model.variables, *model.optimizer.variables]
        self._values = [keras.ops.convert_to_numpy(v).copy() for v in self._variables]

    def as_new(self):
        """The model in its first state."""
        for variable, value in zip(self._variables, self._values, strict=True):
            variable.assign(value)
        self.model.non_finite = "raise"
        return self.model
