"""
Title: Your own loop in PyTorch
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: A memory bank and an objective between your nn.Module and your optimizer.
Accelerator: GPU, or none for small images
"""

"""
`fit` is not needed. The memory bank and the objectives are Keras layers, and under PyTorch a Keras
layer is an `nn.Module`. What is yours stays yours: encoder, optimizer, schedule, precision.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before anything imports Keras

import torch
from torch import nn

from instdisc_core import MemoryBank, NonParametricSoftmax
from instdisc_core.augmentation import simclr_augmentation
from instdisc_core.data import ImageFolder

photos = ImageFolder("photos", size=32, corrupt="skip")

"""
## The encoder

Any module that ends in rows of length 1. Forgetting the last line of `forward` is the usual reason
why nothing is learned; the objective raises an error for it.
"""


class Encoder(nn.Module):
    def __init__(self, width=32, embedding_dim=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, embedding_dim),
        )

    def forward(self, images):
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return nn.functional.normalize(self.layers(pixels))


"""
## The loop

A row of the bank for each image, and a batch of images with their indices: image `i` always has the
index `i`. The order of the images is a function of the seed and the epoch.
"""

bank = MemoryBank(num_instances=len(photos), embedding_dim=128, seed=0)
objective = NonParametricSoftmax(temperature=0.1)
augment = simclr_augmentation(32, strength=0.5, blur=False, seed=0)

device = bank.rows.value.device  # Keras takes a GPU where there is one
encoder = Encoder().to(device)
optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)

batches = photos.batches(64, seed=0)
for epoch in range(20):
    batches.epoch = epoch
    for images, indices in batches:
        images, indices = (torch.as_tensor(array, device=device) for array in (images, indices))
        features = encoder(augment(images))
        losses = objective(features, indices, bank)  # (batch,), in nats
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        bank.update(indices, features, after=losses)
    print(f"epoch {epoch}: {losses.mean().item():.3f} nats")

"""
The bank moves in `bank.update` and nowhere else: not in the loss, and not in `backward`. So
gradient checkpointing, `no_grad` and a second call of the loss change nothing. `after=losses` says
that the loss has read the old rows.

`NCE(num_negatives=4096)` in place of the softmax costs the same for any number of images. Then
`objective` has a state, log Z, which belongs in a checkpoint as the bank does:
`{"encoder": encoder.state_dict(), "bank": bank.state_dict()}`.

## Search

The rows of the bank are averages over the training. For a search, embed all images again.
"""

from instdisc_core.index import ImageIndex

encoder.eval()
with torch.no_grad():
    rows = [encoder(torch.as_tensor(images, device=device)) for (images,) in photos.ordered()]
index = ImageIndex(torch.cat(rows).cpu().numpy(), photos)
print(index.names[0], "is like", [index.names[j] for j in index.neighbors(3, [0]).indices[0]])
