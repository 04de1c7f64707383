"""One small model, for tests in which it does not matter what is trained."""

import keras
import numpy as np

from instdisc_core import InstanceDiscrimination

SIZE, DIM = 10, 4  # images, and numbers in each embedding
UNIT = np.eye(DIM, dtype="float32")[:3]  # embeddings of three of them


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
    Compiling a step takes seconds for each model: ``compiled=False`` where it does not matter.
    """
    if encoder is None:
        encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    model = InstanceDiscrimination(encoder, n, dim, objective, seed=0, **kwargs)
    model.compile(optimizer or keras.optimizers.SGD(0.1), run_eagerly=not compiled)
    return model


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
