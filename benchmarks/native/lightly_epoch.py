"""The training loop of lightly's examples: its data set, transform, loss and memory bank."""

import functools
import importlib.metadata

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.native import torch_resnet


@functools.cache  # PyTorch drops the operators with the library, and declares none twice
def declare_torchvision_operators():
    """Let a torchvision that was built for CUDA be imported next to a PyTorch for CPUs.

    Its compiled operators cannot be loaded then, and its import fails where it describes them. No
    transform uses them.
    """
    if torch.version.cuda is None and "+cpu" not in importlib.metadata.version("torchvision"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


class Training:
    """A network with lightly's loss over its memory bank; arguments as in ``torch_epoch``.

    Args:
        folder: of the images.
        dim: of the embeddings.
        num_rows: of lightly's memory bank, a queue.
    """

    def __init__(self, encoder, shape, folder, dim, num_rows, settings, temperature, channels_last):
        declare_torchvision_operators()
        from lightly.data import LightlyDataset
        from lightly.loss import NTXentLoss
        from lightly.transforms import SimCLRTransform

        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        backbone = torch_resnet.build(encoder, *shape)
        head = nn.Linear(encoder.output_shape[-1], dim)
        self.net = nn.Sequential(backbone, head).to(memory_format=self.layout)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.03, momentum=0.9)
        self.loss = NTXentLoss(temperature, memory_bank_size=(num_rows, dim))
        transform = SimCLRTransform(
            settings["size"],
            cj_strength=settings["strength"],
            min_scale=settings["scale"][0],
            gaussian_blur=0.0,
        )
        self.train = DataLoader(
            LightlyDataset(str(folder), transform),
            settings["batch_size"],
            shuffle=True,
            drop_last=True,
            num_workers=settings["workers"],
            persistent_workers=settings["workers"] > 0,
        )

    def epoch(self):
        """Train on two views of every image; returns the last loss."""
        self.net.train()
        for views, _, _ in self.train:
            self.optimizer.zero_grad()
            one, other = (
                self.net(images.contiguous(memory_format=self.layout)) for images in views
            )
            loss = self.loss(one, other)
            loss.backward()
            self.optimizer.step()
        return loss.item()
