"""Instance discrimination in a plain PyTorch loop.

    python examples/train_torch.py
    python examples/train_torch.py --data path/to/images --objective nce --epochs 100
    torchrun --nproc-per-node 2 examples/train_torch.py                # on two devices, one bank

The encoder is any `nn.Module` and the optimizer is PyTorch's. The memory bank and the objective are
called between the two. They are Keras layers, and so `nn.Module`s too.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before anything imports Keras

import common
import keras
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import trange

from instdisc_core import MemoryBank
from instdisc_core.devices import synchronize


class Encoder(nn.Module):
    """A small convolutional network that ends in unit embeddings."""

    def __init__(self, channels, embedding_dim):
        super().__init__()
        self.blocks = nn.Sequential(
            *self._block(channels, 32),
            nn.MaxPool2d(2),
            *self._block(32, 64),
            nn.MaxPool2d(2),
            *self._block(64, 128),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, embedding_dim),
        )

    def forward(self, images):
        """From ``(batch, height, width, channels)`` to unit rows ``(batch, embedding_dim)``."""
        embeddings = self.blocks(images.permute(0, 3, 1, 2))
        return nn.functional.normalize(embeddings, dim=1)

    @staticmethod
    def _block(channels, filters):
        convolution = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
        return convolution, nn.BatchNorm2d(filters), nn.ReLU()


def main():
    """Train, then report."""
    args = common.parse_arguments(__doc__)
    if dist.is_torchelastic_launched():  # by torchrun
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()
    keras.utils.set_random_seed(args.seed)
    images = common.load_images(args.data, args.image_size, args.seed)

    bank = MemoryBank(len(images.train), args.embedding_dim, seed=args.seed)
    objective = common.build_objective(args.objective, args.temperature, args.seed)
    objective.build(bank.shape)  # the parametric softmax has weights of its own
    ranks = bank.communicator
    synchronize(ranks, bank, objective)
    augmenter = common.RandomAffine(seed=args.seed + ranks.process)

    device = bank.rows.value.device  # Keras takes an accelerator where there is one
    encoder = Encoder(images.train.shape[-1], args.embedding_dim).to(device)
    model = encoder
    if ranks.size > 1:
        if device.type == "cuda":  # else each rank normalizes by its own images
            encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
        model = DistributedDataParallel(encoder)
    weights = [*encoder.parameters(), *(v.value for v in objective.trainable_variables)]
    optimizer = torch.optim.Adam(weights, lr=args.learning_rate)

    batches = common.training_batches(images, args)
    for epoch in (bar := trange(args.epochs, unit="epoch", disable=ranks.process > 0)):
        batches.epoch = epoch
        for batch in batches:
            pixels, indices = (torch.from_numpy(array).to(device) for array in batch)
            features, indices = ranks.whole_batch(model(augmenter(pixels)), indices)
            with bank.bank_ops.divided():  # several ranks share the work
                losses = objective(features, indices, bank)
            optimizer.zero_grad()
            ranks.whole_loss(losses.mean()).backward()
            optimizer.step()
            bank.update(indices, features, after=losses)  # only now: the loss has read the old rows
        bar.set_postfix(loss=f"{losses.mean().item():.3f}")

    encoder.eval()

    @torch.no_grad()
    def embed(batch):
        return encoder(torch.from_numpy(batch).to(device))

    if ranks.process == 0:
        common.report(embed, images, bank)
    if ranks.size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
