"""Ranks of torch.distributed, which try everything in one process group and write what they found.

    python torch_ranks.py FOLDER 2 3    # two ranks, and then three

The ranks are forked after the imports, which take longer than all they do.
"""

import json
import os
import sys
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
import torch.distributed as dist
from devices import torch_files
from devices import torch_loops as loops
from devices.trainings import (
    CASES,
    DIM,
    Case,
    N,
    batches,
    build,
    images,
    numpy,
    outcome,
    trained,
    trained_nnclr,
)
from models import small_nnclr

import instdisc_core
from instdisc_core import Checkpoints, Communicator, MemoryBank
from instdisc_core.data import ArrayBatches
from instdisc_core.devices import require_same_values
from instdisc_core.fitting import start_ranks
from instdisc_torch.joined_gradients import leave_out_sharded_rows

SECONDS = 180  # for a message of the other ranks


def error_of(function, *arguments, **keywords):
    """What a function that must fail says."""
    try:
        function(*arguments, **keywords)
    except ValueError as error:
        return str(error)
    return "it did not fail"


def disagreements():
    """What fit says where rank 1 differs from rank 0."""
    odd = dist.get_rank() == 1
    model, other_data = build(Case()), batches(Case())
    other_data._arrays[0][0] += odd
    other_seed = build(Case())
    other_seed.seed = 6 if odd else 5
    other_size = build(Case(), N + odd)
    other_width = build(Case(arguments={"embedding_dim": DIM + odd}))
    other_order = batches(Case())
    other_order.seed += odd
    other_version = build(Case())
    version = instdisc_core.__version__
    instdisc_core.__version__ = "0.0" if odd else version
    of_version = error_of(other_version.fit, batches(Case()))
    instdisc_core.__version__ = version
    other_loss = small_nnclr(temperature=0.2 if odd else 0.1)
    return {
        "version": of_version,
        "temperature": error_of(other_loss.fit, batches(Case())),
        "data": error_of(model.fit, other_data),
        "order": error_of(model.fit, other_order),
        "seed": error_of(other_seed.fit, batches(Case())),
        "num_instances": error_of(other_size.fit, batches(Case())),
        "embedding_dim": error_of(other_width.fit, batches(Case())),
        "distributed": error_of(keras_distribution, model),
        "weights": error_of(build(Case("parametric")).fit, batches(Case())),
        "wrapped": error_of(loops.wrapped_model().fit, batches(Case())),
    }


def keras_distribution(model):
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        model.fit(batches(Case()))
    finally:
        keras.distribution.set_distribution(None)


class MovesOneRank(keras.callbacks.Callback):
    """Writes other rows into the bank of rank 1 than into those of the other ranks."""

    def on_train_batch_end(self, batch, logs=None):
        rank, bank = dist.get_rank(), self.model.memory_bank
        bank.update(np.array([0]), np.eye(DIM, dtype="float32")[[rank]])


def mistakes():
    """What is found where users, or we, do it wrong."""
    rank, found = dist.get_rank(), {}
    bank = MemoryBank(N, 8, seed=0)
    own = np.arange(5) + 5 * rank
    bank.update(own, numpy(bank.lookup(own[::-1].copy())).astype("float32"))
    found["own update"] = error_of(require_same_values, bank.communicator, bank.variables)
    nce = build(Case("nce"))
    nce.objective.partition.log_z.assign(float(rank))
    found["own Z"] = error_of(require_same_values, nce.communicator, nce.objective.variables)
    moved = build(Case())
    found["in fit"] = error_of(moved.fit, batches(Case()), callbacks=[MovesOneRank()], verbose=0)
    found["bank in DDP"], found["bank left out"] = (
        loops.rows_after_wrapping(leave) for leave in (None, leave_out_sharded_rows)
    )
    return found


def alone():
    """What a rank with a whole bank does while the others wait for nothing."""
    model = build(Case("nce"))
    bank, x = model.memory_bank, images()
    if dist.get_rank() == 0:
        embeddings = model.predict(x, verbose=0)
        bank.search(embeddings, k=3)
        bank.attend(embeddings, 0.1)
        model.evaluate(x, np.arange(N), verbose=0)
    dist.barrier()


def augmented():
    """The random states and two draws of this rank, after two starts; and of its negatives."""
    noise = keras.layers.GaussianNoise(1.0, seed=4)
    model = build(Case("nce", arguments={"augmenter": noise}))
    for _ in range(2):
        start_ranks(model)
    drawn = numpy(noise(np.zeros((1, 2), "float32"), training=True)).ravel()
    negatives = model.objective.sampler.seed_generator.state
    return {"state": numpy(noise.seed_generator.state).tolist(), "drawn": drawn.tolist()} | {
        "negatives": numpy(negatives).tolist()
    }


def unseeded():
    """The rows of a bank without a seed, of which each rank drew others."""
    keras.utils.set_random_seed(dist.get_rank())
    model = build(Case(), seed=None)
    start_ranks(model)
    return numpy(model.memory_bank.lookup(np.arange(N)))


def messages(n, sharded, objective):
    """Bytes that this rank sends in each step, by operation, in two trainings of one model."""
    model, sent = build(Case(objective, sharded=sharded), n), []
    counted = loops.counting(sent)
    indices = np.arange(24, dtype="int32")
    data = ArrayBatches(images()[:24], indices, batch_size=12, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data, epochs=1, verbose=0)
        with counted:
            model.fit(data, epochs=2, initial_epoch=1, verbose=0, callbacks=[loops.Marks(sent)])
    return loops.of_steps(sent)


def continued(folder, sharded):
    """One of two epochs, with checkpoints."""
    case = Case("nce", sharded=sharded)
    model = build(case)
    saver = Checkpoints(folder / f"run-{'sharded' if sharded else 'whole'}")
    model.fit(batches(case), epochs=1, verbose=0, callbacks=[saver])


def work(folder, ranks):
    """All of it on one rank."""
    rank = dist.get_rank()
    cases = {k: case for k, case in CASES.items() if ranks == 2 or case.sharded}
    for name, case in cases.items():
        np.savez(folder / f"{name}-{ranks}-{rank}.npz", **trained(case))
    for sharded in (False, True):
        found = loops.trained(sharded)
        np.savez(folder / f"loop-{'sharded' if sharded else 'whole'}-{ranks}-{rank}.npz", **found)
    np.savez(folder / f"nnclr-{ranks}-{rank}.npz", **trained_nnclr())
    loaded = build(CASES["int8-sharded"])
    file = folder / "int8.weights.h5"
    if ranks == 2:
        loaded.fit(batches(CASES["int8-sharded"]), epochs=1, verbose=0)
        loaded.save_weights(file)
        loaded.save(folder / "int8.keras")
        np.savez(folder / f"saved-2-{rank}.npz", **outcome(loaded))
        for sharded in (False, True):
            continued(folder, sharded)
        found = {
            "disagreements": disagreements(),
            "mistakes": mistakes(),
            "augmented": augmented(),
            "messages": {
                f"{objective}, sharded={sharded}": [
                    messages(n, sharded, objective) for n in (N, 96)
                ]
                for objective in ("exact", "nce", "shared_nce")
                for sharded in (False, True)
            },
        }
        alone()
        found["recipe"] = torch_files.recipe_runs(folder / "recipe")
        torch_files.logs(folder)
        (folder / f"found-{rank}.json").write_text(json.dumps(found))
        np.savez(folder / f"unseeded-2-{rank}.npz", rows=unseeded())
        arrays = build(Case())
        arrays.fit(images(), np.arange(N), batch_size=12, verbose=0)
        np.savez(folder / f"arrays-2-{rank}.npz", **outcome(arrays))
    else:
        loaded.load_weights(file)
        np.savez(folder / f"loaded-{ranks}-{rank}.npz", **outcome(loaded))


def run(folder, ranks, rank):
    """A rank's process. The ranks find each other by a file: a port may be taken meanwhile."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder.resolve()}/store-{ranks}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=SECONDS),
    )
    work(folder, ranks)
    dist.destroy_process_group()


def main(folder, *sizes):
    assert Communicator().size == 1
    for ranks in map(int, sizes):
        children = {}
        for rank in range(ranks):
            child = os.fork()
            if not child:
                status = 1
                try:
                    run(Path(folder), ranks, rank)
                    status = 0
                except BaseException:
                    print(f"rank {rank} of {ranks}:\n{traceback.format_exc()}", flush=True)
                os._exit(status)
            children[child] = rank
        failed = 0
        while children and not failed:
            done, status = os.waitpid(-1, 0)
            failed = status
            children.pop(done)
        if failed:
            time.sleep(2)  # the others name their errors
            for child in children:
                os.kill(child, 9)
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
