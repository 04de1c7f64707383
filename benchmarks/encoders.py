"""A training step of the encoders, against the same network written natively in the framework.

    KERAS_BACKEND=torch python -m benchmarks.encoders

Forward, backward and update on the squared error, from the same weights on the same batch. The
losses of the first steps are compared before anything is timed.
"""

import argparse

import keras
import numpy as np

from benchmarks import harness
from benchmarks.names import KERAS_ENCODER, NATIVE
from instdisc_core import native_layers
from instdisc_core.encoders import resnet

BACKEND = keras.backend.backend()
DTYPES = ("float32", "bfloat16")
COMPILED = {"graph": False, "XLA": True}  # how TensorFlow runs the native step


def native_steps(encoder, shape, images, targets, bfloat16):
    """Name to a function that trains the native network once; the fastest is the baseline."""
    if BACKEND == "torch":
        from benchmarks.native import torch_resnet

        return {
            f"{NATIVE}, {name}": torch_resnet.step(
                torch_resnet.build(encoder, *shape), images, targets, bfloat16, channels_last
            )
            for name, channels_last in {"NCHW": False, "channels_last": True}.items()
        }
    if BACKEND == "tensorflow":
        import tensorflow as tf

        from benchmarks.native import tensorflow_resnet

        dtype = tf.bfloat16 if bfloat16 else tf.float32
        return {
            f"{NATIVE}, {name}": tensorflow_resnet.step(
                tensorflow_resnet.ResNet(encoder, *shape, dtype), images, targets, jit
            )
            for name, jit in COMPILED.items()
        }
    from benchmarks.native import jax_resnet

    net = jax_resnet.ResNet(*shape, "bfloat16" if bfloat16 else "float32")
    return {f"{NATIVE}, Flax": jax_resnet.step(net, encoder, images, targets)}


class Trained(keras.Model):
    """The encoder, called as ``InstanceDiscrimination`` calls it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def call(self, images, training=None):
        """Features."""
        return native_layers.call(self.encoder, images, training)


def our_step(encoder, images, targets):
    """A function that trains the Keras encoder once in the stock step."""
    model = Trained(encoder)
    model.compile(keras.optimizers.SGD(0.03, momentum=0.9), loss="mse")
    return lambda: float(model.train_on_batch(images, targets))


def measure(args, dtype):
    """Seconds of each candidate in one precision, and how far their first losses are apart."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    encoder = resnet(args.depth, (args.size, args.size, 3), args.stem, args.width)
    images = rng.standard_normal((args.batch_size, args.size, args.size, 3)).astype("float32")
    targets = rng.random((args.batch_size, encoder.output_shape[-1])).astype("float32")
    shape = args.depth, args.stem, args.width
    steps = native_steps(encoder, shape, images, targets, dtype == "bfloat16")
    steps[KERAS_ENCODER] = our_step(encoder, images, targets)
    losses = {name: [run() for _ in range(3)] for name, run in steps.items()}
    errors = {
        name: max(abs(a / b - 1) for a, b in zip(found, losses[KERAS_ENCODER], strict=True))
        for name, found in losses.items()
    }
    if not max(errors.values()) < (0.05 if dtype == "bfloat16" else 1e-3):
        raise AssertionError(f"the networks differ: {losses}")
    return harness.alternate(steps, args.rounds, warmups=0), errors


def main():
    """Parse, measure, write."""
    parser = harness.parser(__doc__, depth=18, width=64, size=32, batch_size=128, rounds=5)
    parser.add_argument("--stem", default="cifar", choices=("cifar", "patch"))
    args: argparse.Namespace = parser.parse_args()
    results = {"settings": vars(args)}
    for dtype in DTYPES:
        seconds, errors = measure(args, dtype)
        natives = [name for name in seconds if name != KERAS_ENCODER]
        fastest = min(natives, key=lambda name: seconds[name]["median"])
        ratio = seconds[KERAS_ENCODER]["median"] / seconds[fastest]["median"]
        results[dtype] = {"seconds": seconds, "errors": errors, "fastest": fastest, "ratio": ratio}
        harness.table(
            (f"training step, {dtype}", "ms", "to the fastest native"),
            [
                (
                    name,
                    f"{1e3 * s['median']:.0f}",
                    f"{s['median'] / seconds[fastest]['median']:.2f}",
                )
                for name, s in seconds.items()
            ],
        )
    harness.write("encoders", results)


if __name__ == "__main__":
    main()
