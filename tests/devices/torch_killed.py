"""Two trainings under torchrun: one is interrupted, in the other a rank is killed."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch.distributed as dist
from devices.trainings import Case, batches, build, outcome

from instdisc_core import Checkpoints

LAST = 8  # of 15 steps; checkpoints are written after 6, and in the next epoch after 2 more


class Interrupted(Exception):
    pass


class Ends(keras.callbacks.Callback):
    """Ends the first attempt of a training."""

    def __init__(self, kills):
        super().__init__()
        self.kills = kills

    def on_train_batch_end(self, batch, logs=None):
        is_first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if not is_first or int(self.model.optimizer.iterations.numpy()) < LAST:
            return
        if not self.kills:
            raise Interrupted
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder):
    dist.init_process_group("gloo", timeout=timedelta(seconds=180))
    for name in ("whole", "sharded"):
        case = Case("nce", sharded=name == "sharded")
        model = build(case)
        saver = Checkpoints(Path(folder) / name, save_freq=2)
        callbacks = [Ends(kills=case.sharded), saver]
        try:
            model.fit(batches(case), epochs=3, verbose=0, callbacks=callbacks)
        except Interrupted:
            continue
        epochs = np.array(model.history.epoch)
        found = outcome(model) | {"epochs": epochs}
        np.savez(Path(folder) / f"{name}-2-{dist.get_rank()}.npz", **found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
