"""The objectives: each reads like its equation, and brings its gradient in closed form.

Symbols, after Wu et al.: ``f_i`` the unit embedding of image ``i``, ``v_j`` row ``j`` of the memory
bank, ``s_ij = v_j . f_i / temperature``, ``n`` images, ``m`` negatives, ``P_n`` the noise.
"""

from collections.abc import Callable
from functools import partial

import keras

from instdisc_core.objectives.base import Objective
from instdisc_core.objectives.cost import cheapest_objective, relative_costs
from instdisc_core.objectives.info_nce import InfoNCE
from instdisc_core.objectives.nce import NCE
from instdisc_core.objectives.non_parametric_softmax import NonParametricSoftmax
from instdisc_core.objectives.parametric_softmax import ParametricSoftmax
from instdisc_core.objectives.sampled import SampledObjective
from instdisc_core.validation import require

__all__ = [
    "NCE",
    "InfoNCE",
    "NonParametricSoftmax",
    "Objective",
    "ParametricSoftmax",
    "SampledObjective",
    "cheapest_objective",
    "get",
    "relative_costs",
]

_NAMES: dict[str, Callable[..., Objective]] = {
    "nce": NCE,
    "shared_nce": partial(NCE, shared_negatives=True),
    "non_parametric_softmax": NonParametricSoftmax,
    "info_nce": InfoNCE,
    "parametric_softmax": ParametricSoftmax,
}


def get(identifier, seed=None, **settings):
    """The objective meant by a name, a class's configuration, or an objective itself.

    Args:
        identifier: ``"nce"``, ``"shared_nce"`` (with ``shared_negatives=True``),
            ``"non_parametric_softmax"``, ``"info_nce"`` or ``"parametric_softmax"``, which build
            the objective with its defaults (underscores and capitals don't matter); a serialized
            objective; or an Objective.
        seed: of an objective that is built from its name.
        **settings: its other arguments, such as ``temperature=0.1``.

    Returns:
        An Objective.

    Raises:
        ValueError: the name is unknown, the argument is none of these, or there are settings that
            the objective does not have, or settings for an objective that is built already.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Objective):
        require(not settings, f"settings {settings} with an objective", "a name, or no settings")
        return identifier
    by_key = {name.replace("_", ""): objective for name, objective in _NAMES.items()}
    key = identifier.replace("_", "").lower() if isinstance(identifier, str) else ""
    require(key in by_key, f"objective={identifier!r}", f"one of {tuple(_NAMES)}, or an Objective")
    drawing = {} if by_key[key] is NonParametricSoftmax else {"seed": seed}
    return by_key[key](**drawing, **settings)
