"""Instance discrimination in plain PyTorch: files, views, network, bank, as a user writes it.

The views are made by calls of Pillow, as torchvision's transforms make them on Pillow images.
"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.native import torch_resnet


def view(image, size, scale, strength):
    """A random view of a Pillow image: SimCLR's crop, flip, color jitter and grayscale."""
    image = crop(image, size, scale)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        image = jitter(image, 0.8 * strength, 0.2 * strength)
    if random.random() < 0.2:
        image = image.convert("L").convert("RGB")
    return image


def crop(image, size, scale):
    """A random part of an image with a random shape, resized."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            image = image.crop((left, top, left + w, top + h))
            break
    return image.resize((size, size), Image.Resampling.BILINEAR)


def jitter(image, amount, hue):
    """Random brightness, contrast, saturation and hue, in random order."""

    def turned(image):
        h, s, v = image.convert("HSV").split()
        turn = np.uint8(round(255 * random.uniform(-hue, hue)) % 256)
        return Image.merge("HSV", (Image.fromarray(np.asarray(h) + turn), s, v)).convert("RGB")

    def enhanced(kind):
        return lambda image: kind(image).enhance(random.uniform(1 - amount, 1 + amount))

    kinds = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
    changes = [*map(enhanced, kinds), turned]
    random.shuffle(changes)
    for change in changes:
        image = change(image)
    return image


def tensor(image):
    """Pixels ``(3, height, width)`` in ``[-1, 1]``."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels.float().div(127.5).sub(1)


class Files(Dataset):
    """Pairs of an image and its index."""

    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        with Image.open(self.files[index]) as image:
            return tensor(self.transform(image.convert("RGB"))), index


class Training:
    """A network, a bank, and the loops over the files.

    Args:
        encoder: the Keras encoder whose weights the network starts from.
        shape: depth, stem and width of the network.
        files: paths of the images.
        rows: the bank at the start, ``(n, d)``, unit rows.
        settings: ``batch_size``, ``workers``, ``size``, ``scale`` and ``strength``.
        temperature: of the softmax.
        channels_last: the layout of images and weights.
    """

    def __init__(self, encoder, shape, files, rows, settings, temperature, channels_last):
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        backbone = torch_resnet.build(encoder, *shape)
        head = nn.Linear(encoder.output_shape[-1], rows.shape[1])
        self.net = nn.Sequential(backbone, head).to(memory_format=self.layout)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.03, momentum=0.9)
        self.bank, self.temperature = torch.from_numpy(rows.copy()), temperature
        loader = {"batch_size": settings["batch_size"], "num_workers": settings["workers"]}
        loader["persistent_workers"] = settings["workers"] > 0

        def transform(image):
            return view(image, settings["size"], settings["scale"], settings["strength"])

        self.train = DataLoader(Files(files, transform), shuffle=True, drop_last=True, **loader)
        self.test = DataLoader(Files(files, lambda image: image), **loader)

    def embed(self, images):
        """Unit embeddings."""
        return F.normalize(self.net(images.contiguous(memory_format=self.layout)))

    def loss(self, embeddings, indices):
        """The exact softmax over the bank."""
        return F.cross_entropy(embeddings @ self.bank.T / self.temperature, indices)

    def epoch(self):
        """Train on every image; returns the last loss."""
        self.net.train()
        for images, indices in self.train:
            self.optimizer.zero_grad()
            embeddings = self.embed(images)
            loss = self.loss(embeddings, indices)
            loss.backward()
            self.optimizer.step()
            rows = self.bank[indices] + embeddings.detach()
            self.bank[indices] = F.normalize(rows)  # half of the old row, half of the new one
        return loss.item()

    @torch.no_grad()
    def predict(self):
        """The embedding of every image."""
        self.net.eval()
        return torch.cat([self.embed(images) for images, _ in self.test])

    @torch.no_grad()
    def evaluate(self):
        """The mean loss of every image."""
        self.net.eval()
        losses = [self.loss(self.embed(images), i).item() * len(i) for images, i in self.test]
        return sum(losses) / len(self.test.dataset)
