"""The share of objective and bank in a training step; the rest is the encoder's.

    KERAS_BACKEND=torch python -m benchmarks.step
    KERAS_BACKEND=torch python -m benchmarks.step --depth 50 --size 224 --stem imagenet    # a GPU

Their time is measured in the same stock step, with an encoder that only normalizes.
"""

import keras
import numpy as np

from benchmarks import batches, harness, names
from instdisc_core import NCE, InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.encoders import resnet

OBJECTIVES = {
    names.EXACT: lambda args: NonParametricSoftmax(0.1),
    names.NCE: lambda args: NCE(args.num_negatives, 0.1, seed=0),
    names.SHARED_NCE: lambda args: NCE(args.num_negatives, 0.1, shared_negatives=True, seed=0),
}


class Normalize(keras.layers.Layer):
    """The smallest encoder, so that a step consists of objective and bank."""

    def call(self, x):
        """Unit rows."""
        return keras.ops.normalize(x, axis=-1)


def stock_step(args, encoder, projector, objective, shape):
    """A training step as ``fit`` runs it, compiled where the framework compiles.

    Returns:
        A function of no argument that trains on the same batch again.
    """
    model = InstanceDiscrimination(
        encoder, args.num_instances, 128, objective, projector=projector, seed=0
    )
    model.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch_size, *shape)).astype("float32")
    indices = batches.instances(rng, args.num_instances, args.batch_size)
    return lambda: model.train_on_batch(images, indices)


def objective_step(args, objective):
    """Loss, gradient and update of the bank alone, in the same stock step."""
    return stock_step(args, Normalize(), Scale(), objective, (128,))


class Scale(keras.layers.Layer):
    """One trainable number, so that there is a gradient to compute."""

    def build(self, shape):
        """Create it."""
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        """The rows, scaled."""
        return x * self.scale


def measured_seconds(args):
    """Seconds of the whole step, and of objective and bank alone, for each objective."""
    seconds = {}
    for name, build in OBJECTIVES.items():
        keras.utils.set_random_seed(0)
        shape = (args.size, args.size, 3)
        encoder = resnet(args.depth, shape, args.stem, args.width)
        candidates = {
            "step": stock_step(args, encoder, None, build(args), shape),
            "ours": objective_step(args, build(args)),
        }
        measured = harness.alternate(candidates, args.rounds, warmups=1)
        seconds[name] = {key: s["median"] for key, s in measured.items()}
    return seconds


def main():
    """Parse, measure, write."""
    sizes = {"num_instances": 50_000, "batch_size": 128, "num_negatives": 4096}
    parser = harness.parser(__doc__, **sizes, depth=18, size=32, width=64, rounds=7)
    parser.add_argument("--stem", default="cifar", choices=("cifar", "imagenet"))
    parser.add_argument("--dtype-policy", default="float32", help="Keras's, of the encoder")
    args = parser.parse_args()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(args.dtype_policy)
    try:
        seconds = measured_seconds(args)
    finally:
        keras.config.set_dtype_policy(before)
    share = {name: s["ours"] / s["step"] for name, s in seconds.items()}
    harness.table(
        ("objective", "step ms", "objective and bank ms", "share"),
        [
            (name, f"{1e3 * s['step']:.0f}", f"{1e3 * s['ours']:.1f}", f"{share[name]:.2%}")
            for name, s in seconds.items()
        ],
    )
    name = "step" if args.depth == 18 else f"step-resnet{args.depth}"
    harness.write(name, {"settings": vars(args), "seconds": seconds, "share": share})


if __name__ == "__main__":
    main()
