"""Batch normalization by the images of all ranks."""

import warnings
from typing import Any

import keras
import torch
import torch.distributed as dist

from instdisc_torch import layers

ALONE = torch.nn.modules.batchnorm._BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over the ranks. Its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def batch_normalization(is_idle: bool, layer: Any, x: torch.Tensor, training: bool) -> Any:
    """``gamma (x - mean) / std + beta``, in training with the moments of all ranks' images.

    If the rank is idle, ``x`` is of no image, and does not count.
    """
    if not (training and layer.trainable):
        return layers.batch_normalization(layer, x, training)
    if layer.axis not in (-1, x.ndim - 1) or layer.renorm:
        return NotImplemented
    dtype = getattr(torch, layer.compute_dtype)
    wide = x.float().flatten(0, -2)
    own = 0 if is_idle else len(wide)
    total = _Sum.apply(torch.cat([wide[:own].sum(0), wide.new_full((1,), own)]))
    count = total[-1].detach()
    mean = total[:-1] / count
    centered = wide - mean
    variance = _Sum.apply(centered[:own].square().sum(0)) / count
    y = centered * torch.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        y = y * layer.gamma.value
    if layer.beta is not None:
        y = y + layer.beta.value
    with torch.no_grad():
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(layer.momentum * moving.value + (1 - layer.momentum) * batch.detach())
    return y.view(x.shape).to(dtype)


def warn_of_batch_norms(model: keras.Model) -> None:
    """Warn of modules that normalize by the images of their own rank.

    Args:
        model: what is trained.
    """
    alone = [
        name
        for name, module in model.named_modules()
        if isinstance(module, ALONE) and not isinstance(module, torch.nn.SyncBatchNorm)
    ]
    if alone:
        warnings.warn(
            f"Received: {len(alone)} modules such as {alone[0]}, which normalize by the images of "
            "one rank. Expected the statistics of all ranks: else it is another training than that "
            "of one device. On GPUs, torch.nn.SyncBatchNorm.convert_sync_batchnorm(module) is it.",
            stacklevel=2,
        )
