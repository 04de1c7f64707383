"""The residual network in plain PyTorch."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import native


class Normalized(nn.Sequential):
    """A convolution and its batch normalization."""

    def __init__(self, channels, filters, size, stride):
        padding = size // 2 if size % 2 else 0
        super().__init__(
            nn.Conv2d(channels, filters, size, stride, padding, bias=False),
            nn.BatchNorm2d(filters),
        )


class Block(nn.Module):
    """``relu(shortcut(x) + f(x))``."""

    def __init__(self, channels, main, shortcut):
        super().__init__()
        self.first = Normalized(channels, *main[0])
        self.second = Normalized(main[0][0], *main[1])
        self.shortcut = Normalized(channels, *shortcut) if shortcut else nn.Identity()

    def forward(self, x):
        """The features after this block."""
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class ResNet(nn.Module):
    """Images ``(batch, 3, height, width)`` to pooled features."""

    def __init__(self, depth, stem, width):
        super().__init__()
        first, blocks = native.plan(depth, stem, width)
        self.stem = Normalized(3, *first)
        channels = width
        self.blocks = nn.Sequential()
        for main, shortcut in blocks:
            self.blocks.append(Block(channels, main, shortcut))
            channels = main[0][0]

    def forward(self, images):
        """Features ``(batch, channels)``."""
        return self.blocks(F.relu(self.stem(images))).mean((2, 3))


def build(encoder, depth, stem, width):
    """The network with the weights of a Keras encoder of the same plan."""
    net = ResNet(depth, stem, width)
    pairs = [module for module in net.modules() if isinstance(module, Normalized)]
    with torch.no_grad():
        for pair, (convolution, normalization) in zip(
            pairs, native.layers_in_order(encoder), strict=True
        ):
            kernel = np.asarray(convolution.kernel.value.detach().cpu())
            pair[0].weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
            values = [v.value.detach() for v in normalization.weights]
            targets = pair[1].weight, pair[1].bias, pair[1].running_mean, pair[1].running_var
            for target, value in zip(targets, values, strict=True):
                target.copy_(value)
    return net


def step(net, images, targets, bfloat16=False, channels_last=False):
    """A function that trains the network once by SGD on the squared error, and returns the loss."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = net.to(device, memory_format=layout)
    optimizer = torch.optim.SGD(net.parameters(), 0.03, momentum=0.9)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout).to(device)
    y = torch.from_numpy(targets).to(device)

    def run():
        casts = torch.autocast(device, torch.bfloat16) if bfloat16 else contextlib.nullcontext()
        optimizer.zero_grad()
        with casts:
            features = net(x)
        loss = F.mse_loss(features.float(), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run
