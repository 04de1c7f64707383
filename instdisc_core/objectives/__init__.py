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
from instdisc_core.objectives.cosine_softmax import CosineSoftmax, cosine_softmax
from instdisc_core.objectives.feature_decorrelation import FeatureDecorrelation
from instdisc_core.objectives.in_batch import in_batch_accuracy, in_batch_softmax
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
    "CosineSoftmax",
    "FeatureDecorrelation",
    "InfoNCE",
    "NonParametricSoftmax",
    "Objective",
    "ObjectiveName",
    "ObjectiveSum",
    "ParametricSoftmax",
    "SampledObjective",
    "cosine_softmax",
    "get",
    "idfd",
    "in_batch_accuracy",
    "in_batch_softmax",
]

ObjectiveName = Literal[
    "nce", "shared_nce", "non_parametric_softmax", "info_nce", "parametric_softmax", "idfd"
]


def idfd(
    temperature: float = 1.0, decorrelation_temperature: float = 2.0, weight: float = 1.0
) -> ObjectiveSum:
    """The objective of IDFD: an exact softmax over the images, and one over the features.

    Args:
        temperature: of ``NonParametricSoftmax``, at least 1e-6.
        decorrelation_temperature: of ``FeatureDecorrelation``, at least 1e-6.
        weight: of ``FeatureDecorrelation`` in the sum.

    Source:
        Tao, Takagi and Nakata, ICLR 2021, with its temperatures. Its weight 1 is of a sum over the
        features, where ``FeatureDecorrelation`` has a mean.

    Example: ``model = InstanceDiscrimination(encoder, len(images), objective=objectives.idfd())``
    """
    features = FeatureDecorrelation(decorrelation_temperature)
    return NonParametricSoftmax(temperature) + features * weight


_NAMES: dict[Any, Callable[..., Objective]] = {
    "nce": NCE,
    "shared_nce": partial(NCE, shared_negatives=True),
    "non_parametric_softmax": NonParametricSoftmax,
    "info_nce": InfoNCE,
    "parametric_softmax": ParametricSoftmax,
    "idfd": idfd,
}


def get(
    identifier: ObjectiveName | dict[str, Any] | Objective,
    seed: int | None = None,
    **settings: Any,
) -> Objective:
    """The objective meant by a name, a class's configuration, or an objective itself.

    Args:
        identifier: ``"nce"``, ``"shared_nce"`` (with ``shared_negatives=True``),
            ``"non_parametric_softmax"``, ``"info_nce"``, ``"parametric_softmax"`` or ``"idfd"``,
            which build the objective with its defaults; a serialized objective; or an Objective.
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
    drawing = {} if identifier in ("non_parametric_softmax", "idfd") else {"seed": seed}
    return _NAMES[identifier](**drawing, **settings)
