"""Which objective costs least: a rule to ask for, never one that is applied unasked."""

from instdisc_core.validation import require, require_count, require_number

# What a scored row costs each objective, where a row of the exact softmax costs 1.
ROW_COSTS = {"cpu": {"nce": 14.0, "shared_nce": 2.0}}


def relative_costs(num_instances, num_negatives=4096, batch_size=256, device="cpu"):
    """What loss and gradient of a batch cost, relative to the exact softmax.

    Every objective scores rows for each image and sums them up for the gradient: all ``n`` of them
    in one dense product, or ``m + 1`` gathered ones of its own, or ``m + B`` that the batch shares
    in a dense product. So each costs its number of rows times what one row costs it on the device:

        exact: n        NCE: 14 (m + 1)        NCE with shared negatives: 2 (m + B)

    The factors are measured on CPUs with 50,000 rows of 128 in float32, near where the choice
    turns; ``docs/performance.md`` holds them against each backend. From a bank too large for the
    processor's cache a gathered row costs about twice as much.

    Args:
        num_instances: ``n``.
        num_negatives: ``m``.
        batch_size: ``B``.
        device: ``"cpu"``; or, for another device, what a row costs there, a dict with the keys
            ``"nce"`` and ``"shared_nce"``: time ``python -m benchmarks.objectives`` on it.

    Returns:
        Dict from ``"non_parametric_softmax"``, ``"nce"`` and ``"shared_nce"``, each a name that
        ``InstanceDiscrimination(objective=...)`` takes, to a float; the first is 1.

    Raises:
        ValueError: sizes below 1, or a device whose costs are not known.

    Source:
        An addition to the paper.

    Example: ``relative_costs(50_000)["nce"]  # 1.15: the exact softmax is cheaper``
    """
    require_count("num_instances", num_instances)
    require_count("num_negatives", num_negatives)
    require_count("batch_size", batch_size)
    costs = ROW_COSTS.get(device, {}) if isinstance(device, str) else device
    require(
        isinstance(costs, dict) and set(costs) == {"nce", "shared_nce"},
        f"device={device!r}",
        f"one of {sorted(ROW_COSTS)}, or a dict with the costs of 'nce' and 'shared_nce'",
        "Time them there with python -m benchmarks.objectives.",
    )
    for name, cost in costs.items():
        require_number(name, cost, 0, open_below=True)
    return {
        "non_parametric_softmax": 1.0,
        "nce": costs["nce"] * (num_negatives + 1) / num_instances,
        "shared_nce": costs["shared_nce"] * (num_negatives + batch_size) / num_instances,
    }


def cheapest_objective(num_instances, num_negatives=4096, batch_size=256, device="cpu"):
    """The name of the objective whose loss and gradient cost least; see ``relative_costs``.

    The exact softmax has no noise, no Z and nothing to tune, so it is the better choice wherever it
    is also the cheaper one, and often beyond: what an objective costs is a small part of a training
    step. Negatives of each image's own cost more than shared ones always.

    Args:
        num_instances, num_negatives, batch_size, device: see ``relative_costs``.

    Returns:
        ``"non_parametric_softmax"``, ``"nce"`` or ``"shared_nce"``.

    Example:
    ```python
    name = cheapest_objective(num_instances=len(images))
    model = InstanceDiscrimination(encoder, len(images), objective=name)
    ```
    """
    costs = relative_costs(num_instances, num_negatives, batch_size, device)
    return min(costs, key=lambda name: costs[name])
