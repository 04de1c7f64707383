"""One small model, for tests in which it does not matter what is trained."""

import keras

from instdisc_core import InstanceDiscrimination

SIZE, DIM = 10, 4  # images, and numbers in each embedding


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
