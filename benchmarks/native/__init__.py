"""The residual network of ``instdisc_core.encoders``, written natively in each framework.

What a user of the framework would write without Keras: its own layers, optimizer and compiled step.
"""

import re

import keras

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}
# Kernel size and stride of the first convolution.
STEMS = {"cifar": (3, 1), "patch": (2, 2)}


def plan(depth, stem, width):
    """The convolutions as ``(channels, size, stride)``: the first one, then those of each block.

    Returns:
        The first convolution, and per block a pair of its main path and of its shortcut, which is
        None where the shape stays.
    """
    blocks, channels = [], width
    for stage, count in enumerate(BLOCKS[depth]):
        for block in range(count):
            filters, stride = width * 2**stage, 2 if stage and not block else 1
            changes = stride > 1 or filters != channels
            main = (filters, 3, stride), (filters, 3, 1)
            blocks.append((main, (filters, 1, stride) if changes else None))
            channels = filters
    return (width, *STEMS[stem]), blocks


def layers_in_order(encoder):
    """The encoder's pairs of a convolution and its normalization, in the order of their creation.

    A plan's convolutions have this order too: the first, then per block main path and shortcut.
    """
    convolutions = _created(encoder, keras.layers.Conv2D)
    normalizations = _created(encoder, keras.layers.BatchNormalization)
    return list(zip(convolutions, normalizations, strict=True))


def _created(encoder, kind):
    found = [layer for layer in encoder.layers if type(layer) is kind]
    return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))
