"""Which variables ``keras.distribution`` divides among devices: the rows of a bank."""

import keras

from instdisc_core.validation import require_choice

# What the tables are called, and their variables that have a row for each image.
PATHS = (
    "(.*/)?memory_bank/(rows|values|scale)",
    "(.*/)?support_set/(rows|values|scale)",
    "(.*/)?class_weights/(rows|momentum_rows|written_after)",
)


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, axis: str | None = None
) -> keras.distribution.LayoutMap:
    """A ``keras.distribution.LayoutMap`` that divides the rows of a bank among devices.

    Each device along the axis holds ``n / devices`` rows; the other variables are whole on every
    device. Set the distribution before the model is built, on JAX. More layouts can be added:
    ``layout_map(mesh)["dense/kernel"] = (None, "batch")``.

    Args:
        device_mesh: of the devices.
        axis: the name of the axis of the mesh along which the rows are divided; None is the last.

    Returns:
        A LayoutMap for ``keras.distribution.ModelParallel``. It knows tables by their names, which
        are ``memory_bank``, ``support_set`` and ``class_weights`` if none is given.

    Raises:
        ValueError: the mesh has no such axis.

    Example:
    ```python
    mesh = keras.distribution.DeviceMesh((1,), ["batch"], devices=["cpu:0"])
    layouts = layout_map(mesh)
    layouts["memory_bank/rows"].axes  # ('batch', None)
    # keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layouts))
    ```
    """
    names = tuple(device_mesh.axis_names)
    axis = names[-1] if axis is None else axis
    require_choice("axis", axis, names)
    layouts = keras.distribution.LayoutMap(device_mesh)
    for path in PATHS:
        layouts[path] = (axis, None)
    return layouts
