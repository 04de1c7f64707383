"""NNCLR in a plain PyTorch loop: the neighbor of one view is the positive of the other.

    python examples/train_nnclr_torch.py
    python examples/train_nnclr_torch.py --data path/to/images --epochs 100

Encoder, projector and predictor are `nn.Module`s. The support set is a queue of projections; the
loss is a function. `instdisc_core.NNCLR` is the same as a Keras model.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before anything imports Keras

import common
import keras
import numpy as np
import torch
from torch import nn
from tqdm import trange

from instdisc_core import SupportSet
from instdisc_core.evaluation import knn_accuracy
from instdisc_core.objectives import in_batch_softmax

HIDDEN = 256  # width of the hidden layers of the heads


def convolutions(channels):
    """A small encoder, from ``(batch, channels, height, width)`` to ``(batch, 128)``."""
    layers = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


def dense(before, after):
    """A dense layer with batch normalization."""
    return nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)


def main():
    """Train, then report how often neighbors have the label of the image."""
    args = common.parse_arguments(__doc__)
    keras.utils.set_random_seed(args.seed)
    images = common.load_images(args.data, args.image_size, args.seed)
    n, d = len(images.train), args.embedding_dim

    support_set = SupportSet(n // 2, d, seed=args.seed)
    augmenter = common.RandomAffine(seed=args.seed)
    device = support_set.rows.value.device  # Keras takes an accelerator where there is one
    encoder = convolutions(images.train.shape[-1])
    relu = nn.ReLU()
    projector = nn.Sequential(
        *dense(128, HIDDEN), relu, *dense(HIDDEN, HIDDEN), relu, *dense(HIDDEN, d)
    )
    predictor = nn.Sequential(*dense(d, HIDDEN), relu, nn.Linear(HIDDEN, d))
    model = nn.ModuleDict({"encoder": encoder, "projector": projector, "predictor": predictor})
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)

    def project(pixels):
        return projector(encoder(pixels.permute(0, 3, 1, 2)))

    batches = common.training_batches(images, args)
    for epoch in (bar := trange(args.epochs, unit="epoch")):
        batches.epoch = epoch
        for batch in batches:
            pixels, indices = (torch.from_numpy(array).to(device) for array in batch)
            z1, z2 = project(augmenter(pixels)), project(augmenter(pixels))
            nn1, nn2 = (support_set.neighbors(z).rows for z in (z1, z2))
            losses = (
                in_batch_softmax(nn1, predictor(z2), args.temperature)
                + in_batch_softmax(nn2, predictor(z1), args.temperature)
            ) / 2
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            support_set.enqueue(z1, indices)  # only now, so no image finds itself
        bar.set_postfix(loss=f"{losses.mean().item():.3f}")

    model.eval()

    @torch.no_grad()
    def embed(batch):
        return nn.functional.normalize(project(torch.from_numpy(batch).to(device)))

    if images.test is None:
        found = support_set.neighbors(embed(images.train[:5])).images.tolist()
        print("Neighbors:", {images.names[i]: images.names[j] for i, j in enumerate(found)})
        return
    train, test = (common.embed_all(embed, part) for part in (images.train, images.test))
    accuracy = knn_accuracy(test, images.test_labels, train, images.train_labels, k=min(10, n))
    found = support_set.neighbors(train).images.cpu().numpy()
    agreement = np.mean(images.train_labels[found] == images.train_labels)
    print(f"kNN accuracy on {len(test)} held-out images: {accuracy:.3f}")
    print(f"Neighbors in the support set with the label of the image: {agreement:.3f}")


if __name__ == "__main__":
    main()
