"""The objectives: each reads like its equation, and most bring their gradient in closed form.

Symbols, after Wu et al.: ``f_i`` the unit embedding of image ``i``, ``v_j`` row ``j`` of the memory
bank, ``s_ij = v_j . f_i / temperature``, ``n`` images, ``m`` negatives, ``P_n`` the noise.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import keras

from instdisc_core.objectives.base import Objective, ObjectiveSum
from instdisc_core.objectives.closed_form import ClosedFormObjective
from instdisc_core.objectives.info_nce import InfoNCE
from instdisc_core.objectives.nce import NCE
from instdisc_core.objectives.non_parametric_softmax import NonParametricSoftmax
from instdisc_core.objectives.parametric_softmax import ParametricSoftmax
from instdisc_core.objectives.sampled import Candidates, SampledObjective
from instdisc_core.validation import require, require_choice

__all__ = [
    "NCE",
    "Candidates",
    "ClosedFormObjective",
    "InfoNCE",
    "NonParametricSoftmax",
    "Objective",
    "ObjectiveName",
    "ObjectiveSum",
    "ParametricSoftmax",
    "SampledObjective",
    "get",
]

ObjectiveName = Literal[
    "nce", "shared_nce", "non_parametric_softmax", "info_nce", "parametric_softmax"
]
_NAMES: dict[Any, Callable[..., Objective]] = {
    "nce": NCE,
    "shared_nce": partial(NCE, shared_negatives=True),
    "non_parametric_softmax": NonParametricSoftmax,
    "info_nce": InfoNCE,
    "parametric_softmax": ParametricSoftmax,
}


def get(
    identifier: ObjectiveName | dict[str, Any] | Objective,
    seed: int | None = None,
    **settings: Any,
) -> Objective:
    """The objective meant by a name, a class's configuration, or an objective itself.

    Args:
        identifier: ``"nce"``, ``"shared_nce"`` (with ``shared_negatives=True``),
            ``"non_parametric_softmax"``, ``"info_nce"`` or ``"parametric_softmax"``, which build
            the objective with its defaults; a serialized objective; or an Objective.
        seed: of an objective that is built from its name.
        **settings: its other arguments, such as ``temperature=0.1``.

    Returns:
        An Objective.

    Raises:
        ValueError: the name is unknown, the argument is none of these, or there are settings that
            the objective does not have, or settings for an objective that is built already.

    Example: ``objective = objectives.get("nce", seed=0, num_negatives=16)``
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Objective):
        require(not settings, f"settings {settings} with an objective", "a name, or no settings")
        return identifier
    require_choice("objective", identifier, _NAMES, ", or an Objective")
    drawing = {} if identifier == "non_parametric_softmax" else {"seed": seed}
    return _NAMES[identifier](**drawing, **settings)
