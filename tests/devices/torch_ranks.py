"""One rank of several: runs all cases in one process group, and writes what came out."""

import os
import sys
from datetime import timedelta
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch
import torch.distributed as dist
from devices.trainings import CASES, trained

torch.set_num_threads(1)


def main(folder):
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    for name, case in CASES.items():
        np.savez(Path(folder) / f"{name}-{rank}.npz", **trained(case))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
