"""SimCLR and NNCLR with the settings of lightly's benchmark on CIFAR-10, on images in memory.

Batches of 128, crops of 32 pixels without blur, SGD with a learning rate of 0.06, momentum 0.9 and
weight decay 5e-4, a cosine over the epochs; the widths of the heads are those of that benchmark,
whose encoder has 512 features.

Source: ``docs/source/getting_started/benchmarks/cifar10_benchmark.py`` of lightly 1.x.
"""

import statistics
import time

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.native import torch_resnet
from benchmarks.native.lightly_epoch import declare_torchvision_operators

SIZE, BATCH, RATE = 32, 128, 0.06
MEASURED = 12  # steps


class Views(Dataset):
    """Two views of each image."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index]))


class Simclr(nn.Module):
    """Encoder, projector, and NT-Xent at lightly's temperature."""

    def __init__(self, backbone, features):
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules import heads

        self.backbone, self.criterion = backbone, NTXentLoss()
        self.projector = heads.SimCLRProjectionHead(features, features, 128)

    def forward(self, views):
        """The loss of a batch of two views."""
        return self.criterion(*(self.projector(self.backbone(view)) for view in views))


class Nnclr(nn.Module):
    """Encoder, projector, predictor, and a queue of 4,096 projections."""

    def __init__(self, backbone, features):
        super().__init__()
        from lightly.loss import NTXentLoss
        from lightly.models.modules import NNMemoryBankModule, heads

        self.backbone, self.criterion = backbone, NTXentLoss()
        hidden = (features, 2048, nn.BatchNorm1d(2048), nn.ReLU())
        self.projector = heads.ProjectionHead([hidden, (2048, 256, nn.BatchNorm1d(256), None)])
        self.predictor = heads.NNCLRPredictionHead(256, 4096, 256)
        self.queue = NNMemoryBankModule((4096, 256))

    def forward(self, views):
        """The loss of a batch of two views."""
        z = [self.projector(self.backbone(view)) for view in views]
        first, second = (self.predictor(one) for one in z)
        near_first = self.queue(z[0].detach(), update=False)
        near_second = self.queue(z[1].detach(), update=True)
        return (self.criterion(near_first, second) + self.criterion(near_second, first)) / 2


METHODS = {"lightly-simclr": Simclr, "lightly-nnclr": Nnclr}


class Training:
    """A training by one of the methods.

    Args:
        name: of the method.
        encoder: the Keras encoder whose network and starting weights are taken.
        shape: its ``(depth, stem, width)``.
        images: uint8 ``(n, 32, 32, 3)``.
        seed: of the heads, the order and the views.
        bfloat16: whether the network computes in bfloat16, by autocast.
    """

    def __init__(self, name, encoder, shape, images, seed, bfloat16=False):
        declare_torchvision_operators()
        from lightly.transforms import SimCLRTransform

        torch.manual_seed(seed)
        backbone = torch_resnet.build(encoder, *shape)
        method = METHODS[name](backbone, encoder.output_shape[-1])
        self.method = method.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.method.parameters(), RATE, momentum=0.9, weight_decay=5e-4
        )
        self.bfloat16 = bfloat16
        workers = torch.get_num_threads()
        self.batches = DataLoader(
            Views(images, SimCLRTransform(SIZE, gaussian_blur=0.0)),
            min(BATCH, len(images)),
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def seconds_per_step(self):
        """Median seconds of a step, views included. The network is trained a little by it."""
        ends = [time.perf_counter() for _ in self._steps(MEASURED)]
        return statistics.median(np.diff(ends[2:]))

    def train(self, epochs):
        """Train for so many epochs."""
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)
        for epoch in range(epochs):
            losses = [*self._steps(len(self.batches))]
            schedule.step()
            print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}", flush=True)

    def features(self, images):
        """``encoder`` and ``embedding`` of images, as float32 arrays."""
        from lightly.transforms.utils import IMAGENET_NORMALIZE

        mean, std = (torch.tensor(IMAGENET_NORMALIZE[key]) for key in ("mean", "std"))
        self.method.eval()
        found = {"encoder": [], "embedding": []}
        with torch.no_grad():
            for i in range(0, len(images), 500):
                pixels = (torch.from_numpy(images[i : i + 500]) / 255 - mean) / std
                encoded = self.method.backbone(pixels.permute(0, 3, 1, 2).float())
                found["encoder"].append(encoded)
                found["embedding"].append(self.method.projector(encoded))
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}

    def _steps(self, count):
        """Train on so many batches; yields the loss of each."""
        self.method.train()
        done = 0
        while done < count:
            for views in self.batches:
                views = [view.contiguous(memory_format=torch.channels_last) for view in views]
                self.optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                    loss = self.method(views)
                loss.backward()
                self.optimizer.step()
                yield loss.item()
                done += 1
                if done == count:
                    return
