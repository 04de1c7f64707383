"""Training loops in plain PyTorch, alone and with DistributedDataParallel; and what they send."""

from contextlib import contextmanager

import keras
import numpy as np
import torch
import torch.distributed as dist
from devices.trainings import BATCH, DIM, OBJECTIVES, N, images, numpy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from instdisc_core import InstanceDiscrimination, MemoryBank
from instdisc_core.data import ArrayBatches
from instdisc_core.devices import synchronize


class Encoder(nn.Module):
    """Two layers, and unit embeddings."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, DIM))

    def forward(self, x):
        return nn.functional.normalize(self.layers(x), dim=1)


def trained(sharded):
    """What a loop with images that repeat in a batch ends with; of any number of ranks."""
    torch.manual_seed(0)
    encoder, bank = Encoder(), MemoryBank(N, DIM, seed=1, sharded=sharded)
    objective = OBJECTIVES["nce"]()
    objective.build(bank.shape)
    ranks = bank.communicator
    synchronize(ranks, bank, objective)
    model = DistributedDataParallel(encoder) if ranks.size > 1 else encoder
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    indices = np.arange(48, dtype="int32") * 5 % 31  # no batch without images on a rank
    losses = []
    for x, y in ArrayBatches(images()[:48], indices, batch_size=BATCH, seed=1):
        features, y = ranks.whole_batch(model(torch.from_numpy(x)), torch.from_numpy(y))
        with bank.bank_ops.divided():
            each = objective(features, y, bank)
        optimizer.zero_grad()
        loss = ranks.whole_loss(each.mean())
        loss.backward()
        optimizer.step()
        bank.update(y, features, after=each)
        losses.append(loss.item())
    weights = [parameter.detach().ravel() for parameter in encoder.parameters()]
    return {
        "losses": np.array(losses),
        "weights": torch.cat(weights).numpy(),
        "rows": bank.bank_ops.dump(bank.rows)[0],
        "log_z": numpy(objective.partition.log_z),
    }


class Everything(nn.Module):
    """A module that holds the encoder and the bank, as users may wrap it."""

    def __init__(self, bank):
        super().__init__()
        self.encoder, self.bank = Encoder(), bank


def rows_after_wrapping(leave_out):
    """Whether a rank's rows of a sharded bank are its own after DistributedDataParallel."""
    bank = MemoryBank(N - 1, DIM, seed=0, sharded=True)
    before = numpy(bank.rows.local)
    whole = Everything(bank)
    if leave_out is not None:
        leave_out(whole)
    DistributedDataParallel(whole)
    return bool(np.array_equal(numpy(bank.rows.local), before))


def wrapped_model():
    """A model whose encoder joins its gradients already."""
    encoder = keras.layers.TorchModuleWrapper(
        DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(16, 12))),
        output_shape=(None, 12),
    )
    model = InstanceDiscrimination(encoder, N, DIM, OBJECTIVES["exact"](), seed=5)
    model.build((None, 4, 4, 1))
    model.compile(keras.optimizers.SGD(0.1))
    return model


@contextmanager
def counting(sent):
    """Append to ``sent`` the name and the bytes of every message of this rank."""
    names = ("all_reduce", "all_gather_single", "all_gather_into_tensor")
    from instdisc_torch import communicator

    before = {name: getattr(dist, name) for name in names if hasattr(dist, name)}
    own = communicator._all_gather

    def counted(name, function):
        def call(*args, **kwargs):
            message = args[0] if name == "all_reduce" else args[1]
            sent.append((name, message.numel() * message.element_size()))
            return function(*args, **kwargs)

        return call

    for name, function in before.items():
        setattr(dist, name, counted(name, function))
    communicator._all_gather = counted("all_gather", own)
    try:
        yield
    finally:
        communicator._all_gather = own
        for name, function in before.items():
            setattr(dist, name, function)


class Marks(keras.callbacks.Callback):
    """Marks in the list of messages where steps begin and end."""

    def __init__(self, sent):
        super().__init__()
        self.sent = sent

    def on_train_batch_begin(self, batch, logs=None):
        self.sent.append(("begin", 0))

    def on_train_batch_end(self, batch, logs=None):
        self.sent.append(("end", 0))


def of_steps(sent):
    """The messages of each step."""
    steps, within = [], False
    for name, size in sent:
        if name == "begin":
            steps.append([])
        within = name == "begin" or (within and name != "end")
        if within and name != "begin":
            steps[-1].append([name, size])
    return steps
