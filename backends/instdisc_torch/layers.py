"""How PyTorch computes Keras's layers: one function each, and no copy between layouts.

Images stay ``(batch, height, width, channels)``. Their permutation is PyTorch's channels-last
layout, which its convolutions and normalizations compute in.

Keras 3.15 normalizes a batch by ten operations and makes two copies for each convolution. Delete
this file when Keras calls these functions itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from keras import layers

Layer = Any


def batch_normalization(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``gamma (x - mean) / std + beta``, with the batch's moments in training."""
    gamma, beta = (None if v is None else v.value for v in (layer.gamma, layer.beta))
    rounded = gamma is None and beta is None and _dtype(layer).itemsize < 4  # its moments would be
    if layer.axis not in (-1, x.ndim - 1) or layer.renorm or layer.synchronized or rounded:
        return NotImplemented
    x = torch.movedim(x, -1, 1).to(_dtype(layer))
    if gamma is None and beta is not None:  # CUDA's gradient needs both or neither
        gamma = torch.ones_like(beta)
    mean, variance = layer.moving_mean.value, layer.moving_variance.value
    if not (training and layer.trainable):
        y = F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
        return torch.movedim(y, 1, -1)
    count = x.numel() // x.shape[1]
    if count == 1 or mean is not layer.moving_mean._value:  # a stateless scope: it is the caller's
        return NotImplemented
    # Keras's moving variance is that of the batch, and PyTorch's that times n / (n - 1). They move
    # when nothing can fail any more: the kernel's are copies, which it keeps for the gradient.
    widened, step = count / (count - 1), 1 - layer.momentum
    moments = mean.data.clone(), variance.data * widened
    y = torch.native_batch_norm(x, gamma, beta, *moments, True, step, layer.epsilon)[0]
    mean.data.copy_(moments[0])
    torch.div(moments[1], widened, out=variance.data)
    return torch.movedim(y, 1, -1)


def convolution(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``activation(x * kernel + bias)``."""
    padding = _padding(layer)
    if padding is None or _is_rounded(layer.kernel, layer):
        return NotImplemented
    kernel = layer.kernel.value.permute(3, 2, 0, 1)
    return _convolved(layer, x, kernel, padding, layer.groups)


def depthwise_convolution(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``activation(x * kernel + bias)``, with kernels for each channel alone."""
    padding = _padding(layer)
    if padding is None or _is_rounded(layer.kernel, layer):
        return NotImplemented
    kernel = layer.kernel.value.permute(2, 3, 0, 1).flatten(0, 1)[:, None]
    return _convolved(layer, x, kernel, padding, x.shape[-1])


def dense(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``activation(x kernel + bias)``."""
    if _is_rounded(layer.kernel, layer):
        return NotImplemented
    dtype = _dtype(layer)
    y = F.linear(x.to(dtype), layer.kernel.value.to(dtype).T, _bias(layer, dtype))
    return layer.activation(y)


def zero_padding(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """The images in a frame of zeros."""
    if layer.data_format != "channels_last":
        return NotImplemented
    (top, bottom), (left, right) = layer.padding
    return F.pad(x.to(_dtype(layer)), (0, 0, left, right, top, bottom))


def max_pooling(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """The maximum of each window."""
    if layer.data_format != "channels_last" or layer.padding != "valid":
        return NotImplemented
    y = F.max_pool2d(x.to(_dtype(layer)).permute(0, 3, 1, 2), layer.pool_size, layer.strides)
    return y.permute(0, 2, 3, 1)


def global_average_pooling(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """The mean over the pixels."""
    if layer.data_format != "channels_last":
        return NotImplemented
    return x.to(_dtype(layer)).mean((1, 2), keepdim=layer.keepdims)


def relu(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``max(x, 0)``."""
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        return NotImplemented
    return F.relu(x.to(_dtype(layer)))


def activation(layer: Layer, x: torch.Tensor, training: bool) -> torch.Tensor:
    """The layer's function."""
    return layer.activation(x.to(_dtype(layer)))


def add(layer: Layer, x: list[torch.Tensor], training: bool) -> Any:
    """The sum of tensors of one shape."""
    if len(x) != 2 or x[0].shape != x[1].shape:
        return NotImplemented
    return x[0].to(_dtype(layer)) + x[1].to(_dtype(layer))


def rescaling(layer: Layer, x: torch.Tensor, training: bool) -> Any:
    """``scale x + offset``, with numbers."""
    if not isinstance(layer.scale, (int, float)) or not isinstance(layer.offset, (int, float)):
        return NotImplemented
    dtype = _dtype(layer)
    numbers = torch.tensor([layer.scale, layer.offset], dtype=dtype, device="cpu")
    scale, offset = numbers.tolist()  # rounded, as Keras does it; on the host
    return x.to(dtype) * scale + offset


LAYERS = {
    layers.Activation: activation,
    layers.Add: add,
    layers.BatchNormalization: batch_normalization,
    layers.Conv2D: convolution,
    layers.Dense: dense,
    layers.DepthwiseConv2D: depthwise_convolution,
    layers.GlobalAveragePooling2D: global_average_pooling,
    layers.MaxPooling2D: max_pooling,
    layers.ReLU: relu,
    layers.Rescaling: rescaling,
    layers.ZeroPadding2D: zero_padding,
}


def _dtype(layer: Layer) -> torch.dtype:
    return getattr(torch, layer.compute_dtype)


def _is_rounded(variable: Any, layer: Layer) -> bool:
    """Whether the model around rounds a weight to a type that the layer does not compute in."""
    return variable.value.dtype not in (_dtype(layer), getattr(torch, layer.variable_dtype))


def _bias(layer: Layer, dtype: torch.dtype) -> torch.Tensor | None:
    return None if layer.bias is None else layer.bias.value.to(dtype)


def _padding(layer: Layer) -> tuple[int, int] | None:
    """Pixels on either side; None where the sides differ, or the layout is another."""
    if layer.data_format != "channels_last" or layer.padding not in ("valid", "same"):
        return None
    if layer.padding == "valid":
        return 0, 0
    reach = [d * (k - 1) for d, k in zip(layer.dilation_rate, layer.kernel_size, strict=True)]
    uneven = any(s > 1 for s in layer.strides) or any(pixels % 2 for pixels in reach)
    return None if uneven else (reach[0] // 2, reach[1] // 2)


def _convolved(
    layer: Layer, x: torch.Tensor, kernel: torch.Tensor, padding: tuple[int, int], groups: int
) -> torch.Tensor:
    """A convolution by a kernel ``(filters, channels, rows, columns)``, and the activation."""
    dtype = _dtype(layer)
    y = F.conv2d(
        x.to(dtype).permute(0, 3, 1, 2),
        kernel.to(dtype, memory_format=torch.channels_last),
        _bias(layer, dtype),
        layer.strides,
        padding,
        layer.dilation_rate,
        groups,
    )
    return layer.activation(y.permute(0, 2, 3, 1))
