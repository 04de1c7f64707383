"""Images per second of whole epochs, from files to an updated bank, against plain code.

    KERAS_BACKEND=torch python -m benchmarks.end_to_end

All candidates read the same JPEG files in each epoch, make SimCLR's views for CIFAR (without blur),
and train the same network on the exact softmax over the bank; lightly trains on its own loss. Their
epochs take turns. The bare step is the natively written network alone: forward, backward and
update on one batch that is in memory, as many times as an epoch has batches.
"""

import argparse
import math
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from benchmarks import encoders, harness, names
from instdisc_core import InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.augmentation import simclr_augmentation
from instdisc_core.data import ImageFolder
from instdisc_core.encoders import resnet

DIM, TEMPERATURE = 128, 0.1
SCALE, STRENGTH = (0.2, 1.0), 0.5


def write_images(folder, count, size):
    """Square JPEG files of smooth shapes with some noise."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), "uint8"))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), "int16")
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype("uint8")
        Image.fromarray(noisy).save(folder / f"{i:06d}.jpg", quality=90)


def encoder_of(args, preprocessing=False):
    """The encoder with the same weights every time."""
    keras.utils.set_random_seed(0)
    shape = (args.size, args.size, 3)
    return resnet(args.depth, shape, args.stem, args.width, include_preprocessing=preprocessing)


class Ours:
    """``InstanceDiscrimination`` on an image folder."""

    def __init__(self, args, folder, views):
        self.source = ImageFolder(
            folder, args.size, cache=False, workers=max(1, args.workers), verbose=False
        )
        self.model = InstanceDiscrimination(
            encoder_of(args, preprocessing=True),
            args.images,
            DIM,
            NonParametricSoftmax(TEMPERATURE),
            augmenter=simclr_augmentation(args.size, STRENGTH, blur=False, scale=SCALE, seed=0),
            views=views,
            seed=0,
        )
        self.model.compile(keras.optimizers.SGD(0.03, momentum=0.9))
        self.batches = self.source.batches(args.batch_size, seed=0, drop_remainder=True)
        self.ordered = self.source.ordered(args.batch_size)

    @property
    def bank(self):
        """The rows of the bank."""
        return self.model.memory_bank.rows

    def epoch(self):
        """Train on every image; returns the loss."""
        return self.model.fit(self.batches, verbose=0).history["loss"][0]

    def predict(self):
        """The embedding of every image."""
        return self.model.predict(self.ordered, verbose=0)

    def evaluate(self):
        """The mean loss of every image."""
        return self.model.evaluate(self.batches, verbose=0)


def native_step(args):
    """The name of the fastest native step, and a function that runs it for an epoch."""
    encoder = encoder_of(args)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch_size, args.size, args.size, 3)).astype("float32")
    targets = rng.random((args.batch_size, encoder.output_shape[-1])).astype("float32")
    shape = args.depth, args.stem, args.width
    steps = encoders.native_steps(encoder, shape, images, targets, False)
    seconds = harness.alternate(steps, 2, warmups=1)
    fastest = min(steps, key=lambda name: seconds[name]["fastest"])

    def epoch():
        return [steps[fastest]() for _ in range(args.images // args.batch_size)][-1]

    return fastest, epoch


def plain_torch(args, folder, channels_last):
    """The loop in plain PyTorch."""
    from benchmarks.native import torch_epoch
    from instdisc_core.testing import strategies

    rows = strategies.unit_rows(np.random.default_rng(0), args.images, DIM)
    shape = args.depth, args.stem, args.width
    return torch_epoch.Training(
        encoder_of(args),
        shape,
        sorted(folder.iterdir()),
        rows.astype("float32"),
        settings(args),
        TEMPERATURE,
        channels_last,
    )


def lightly(args, folder, channels_last):
    """Lightly's loop, or None where it cannot be imported."""
    from benchmarks.native import lightly_epoch

    shape = args.depth, args.stem, args.width
    try:
        return lightly_epoch.Training(
            encoder_of(args),
            shape,
            folder,
            DIM,
            args.images,
            settings(args),
            TEMPERATURE,
            channels_last,
        )
    except (ImportError, RuntimeError) as error:
        print(f"lightly is not timed, because it cannot be imported: {error}")
        return None


def settings(args):
    """What the loops in PyTorch need."""
    kept = {name: getattr(args, name) for name in ("batch_size", "workers", "size")}
    return {**kept, "scale": SCALE, "strength": STRENGTH}


def require_trained(trainings):
    """Raise unless the losses of an epoch are finite, and it moves every row of the banks."""

    def rows(training):
        return np.array(keras.ops.convert_to_numpy(training.bank))  # as they are now

    for name, training in trainings.items():
        has_bank = hasattr(training, "bank")  # lightly's is a queue
        before = rows(training) if has_bank else None
        loss = training.epoch()
        if not math.isfinite(loss):
            raise AssertionError(f"{name}: loss {loss}")
        if has_bank and not np.all(np.any(before != rows(training), axis=1)):
            raise AssertionError(f"{name}: rows of the bank did not move")


def main():
    """Parse, measure, write."""
    integers = {"images": 512, "batch_size": 128, "size": 32, "depth": 18, "width": 64}
    parser = harness.parser(__doc__, **integers, rounds=3)
    parser.add_argument("--stem", default="cifar", choices=("cifar", "patch"))
    parser.add_argument("--workers", type=int, default=harness.cores(), help="that read files")
    args: argparse.Namespace = parser.parse_args()
    if args.images % args.batch_size:
        parser.error("--images must be a multiple of --batch-size, so that all epochs are equal")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, args.images, args.size)
        results = measure(args, folder)
    rates = results["images_per_second"]
    harness.table(
        ("epochs", "images/s of fit", "to the bare step"),
        [
            (name, f"{rate:.1f}", f"{results['times_of_the_bare_step'][name]:.2f}")
            for name, rate in rates["fit"].items()
        ],
    )
    harness.table(
        ("", "images/s of predict", "of evaluate"),
        [
            (name, f"{rates['predict'][name]:.1f}", f"{rates['evaluate'][name]:.1f}")
            for name in rates["predict"]
        ],
    )
    harness.write("end_to_end", {"settings": vars(args), **results})


def measure(args, folder):
    """Seconds and rates of each candidate."""
    fastest, bare = native_step(args)
    trainings = {
        names.OURS: Ours(args, folder, views=1),
        names.OURS_TWO_VIEWS: Ours(args, folder, views=2),
    }
    if encoders.BACKEND == "torch":
        channels_last = fastest.endswith("channels_last")
        trainings[names.PLAIN] = plain_torch(args, folder, channels_last)
        theirs = lightly(args, folder, channels_last)
        if theirs:
            trainings[names.LIGHTLY] = theirs
    require_trained(trainings)
    fits = {name: training.epoch for name, training in trainings.items()}
    seconds = {"fit": harness.alternate({**fits, names.BARE: bare}, args.rounds, warmups=0)}
    both = [name for name in (names.OURS, names.PLAIN) if name in trainings]
    for method in ("predict", "evaluate"):
        candidates = {name: getattr(trainings[name], method) for name in both}
        seconds[method] = harness.alternate(candidates, args.rounds, warmups=1)
    return {
        "fastest_native": fastest,
        "seconds": seconds,
        "images_per_second": {
            method: {name: args.images / s["median"] for name, s in measured.items()}
            for method, measured in seconds.items()
        },
        "times_of_the_bare_step": {
            name: s["median"] / seconds["fit"][names.BARE]["median"]
            for name, s in seconds["fit"].items()
        },
    }


if __name__ == "__main__":
    main()
