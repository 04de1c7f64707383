"""Images per second of training as a user runs it: whole epochs, and steps of ImageNet's shapes.

    KERAS_BACKEND=torch python -m benchmarks.throughput --data cifar10

An epoch of CIFAR-10 is read from its files, or gathered from images that stay on the device as
uint8. Augmentation, encoder, loss and the update of the bank are in every step.
"""

import time

import keras
import numpy as np

from benchmarks import batches, cifar, frameworks, harness
from instdisc_core import recipes

CIFAR, IMAGENET = "paper-cifar10", "paper-imagenet"


class EpochSeconds(keras.callbacks.Callback):
    """The seconds of each epoch, in ``seconds``."""

    def on_train_begin(self, logs=None):
        """Start."""
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Start an epoch."""
        frameworks.wait(None)
        self._since = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """End it."""
        frameworks.wait(None)
        self.seconds.append(time.perf_counter() - self._since)


def epochs(args, source, changes):
    """Images per second of whole epochs after the first, from files and from the device."""
    found = {}
    for name, on_device in (("files", False), ("device", True)):
        recipe = recipes.get(CIFAR, width=args.width, **changes)
        clock = EpochSeconds()
        given = source.batches(recipe.batch_size, 0, on_device=on_device)
        model = recipe.build(len(source), len(given), seed=0)
        model.fit(given, epochs=args.epochs, callbacks=[clock], verbose=0)
        found[name] = len(source) / min(clock.seconds[1:])
    return found


def imagenet_steps(args, changes):
    """Images per second of a step with ImageNet's bank, for each depth of the encoder."""
    found, rng = {}, np.random.default_rng(0)
    shape = (args.batch_size, args.size, args.size, 3)
    images = keras.ops.convert_to_tensor(rng.integers(0, 256, shape).astype("uint8"))
    indices = batches.instances(rng, args.num_instances, args.batch_size)
    for depth in args.depths:
        recipe = recipes.get(
            IMAGENET,
            depth=depth,
            width=args.width,
            image_size=args.size,
            crop_size=args.size * 7 // 8,
            batch_size=args.batch_size,
            **changes,
        )
        model = recipe.build(args.num_instances, seed=0)
        run = {"step": lambda model=model: model.train_on_batch(images, indices)}
        seconds = harness.alternate(run, args.rounds)["step"]["median"]
        found[f"ResNet-{depth}"] = args.batch_size / seconds
    return found


def main():
    """Parse, measure, write."""
    sizes = {"num_instances": 1_281_167, "batch_size": 256, "size": 256, "width": 64}
    parser = harness.parser(__doc__, **sizes, rounds=9)
    cifar.add_arguments(parser)
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 50])
    args = parser.parse_args()
    args.epochs = args.epochs or 4

    fast = args.on_device or frameworks.on_accelerator()
    changes = {"dtype_policy": "mixed_bfloat16"} if fast else {}
    found = {
        "epoch": epochs(args, cifar.load_for(args)[0], changes),
        "imagenet_step": imagenet_steps(args, changes),
    }
    harness.table(
        ("training", "", "images/s"),
        [(part, name, f"{rate:,.0f}") for part in found for name, rate in found[part].items()],
    )
    settings = {name: value for name, value in vars(args).items() if name not in ("data", "work")}
    harness.write("throughput", {"settings": settings, "images_per_second": found})


if __name__ == "__main__":
    main()
