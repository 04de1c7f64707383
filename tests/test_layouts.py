"""Which variables ``layout_map`` divides among devices."""

import keras
import pytest

from instdisc_core import NNCLR, PIC, InstanceDiscrimination, layout_map

pytestmark = pytest.mark.on_one_backend


def mesh(*names):
    return keras.distribution.DeviceMesh((1,) * len(names), names, devices=["cpu:0"])


@pytest.mark.parametrize(
    ("model", "divided"),
    [
        (lambda: InstanceDiscrimination(keras.layers.Flatten(), 10, 4), {"rows"}),
        (
            lambda: InstanceDiscrimination(keras.layers.Flatten(), 10, 4, bank_dtype="int8"),
            {"values", "scale"},
        ),
        (lambda: NNCLR(keras.layers.Flatten(), 4, 8, augmenter=keras.layers.Identity()), {"rows"}),
        (
            lambda: PIC(keras.layers.Flatten(), 10, 4),
            {"rows", "momentum_rows", "written_after"},
        ),
    ],
)
def test_variables_with_a_row_for_each_image_are_divided_and_no_others(model, divided):
    layouts = layout_map(mesh("batch"))
    found = {v.name: layouts[v.path] for v in model().variables}
    assert {name for name, layout in found.items() if layout is not None} == divided
    assert {found[name].axes for name in divided} == {("batch", None)}


def test_a_bank_inside_another_layer_is_divided():
    layouts = layout_map(mesh("batch"))
    assert layouts["outer/memory_bank/rows"].axes == ("batch", None)
    assert layouts["another_memory_bank/rows"] is None


def test_the_last_axis_or_the_one_that_is_asked_for():
    two = mesh("batch", "model")
    assert layout_map(two)["memory_bank/rows"].axes == ("model", None)
    assert layout_map(two, "batch")["memory_bank/rows"].axes == ("batch", None)
    with pytest.raises(ValueError, match=r"axis='rows'. Expected one of 'batch', 'model'"):
        layout_map(two, "rows")
