"""The residual network in plain TensorFlow, in a ``tf.function``."""

import tensorflow as tf

from benchmarks import native


class ResNet(tf.Module):
    """Images ``(batch, height, width, 3)`` to pooled features.

    Its parameters are float32; it computes in ``dtype``.
    """

    def __init__(self, encoder, depth, stem, width, dtype=tf.float32):
        super().__init__()
        self.plan = native.plan(depth, stem, width)
        self.dtype = dtype
        self.pairs = []
        for convolution, normalization in native.layers_in_order(encoder):
            values = [v.numpy() for v in normalization.weights]
            self.pairs.append(
                {
                    "kernel": tf.Variable(convolution.kernel.numpy()),
                    "scale": tf.Variable(values[0]),
                    "offset": tf.Variable(values[1]),
                    "mean": tf.Variable(values[2], trainable=False),
                    "variance": tf.Variable(values[3], trainable=False),
                }
            )

    def __call__(self, images):
        """Features ``(batch, channels)`` in training."""
        pairs = iter(self.pairs)
        first, blocks = self.plan
        x = tf.nn.relu(self.normalized(tf.cast(images, self.dtype), next(pairs), *first))
        for main, shortcut in blocks:
            y = tf.nn.relu(self.normalized(x, next(pairs), *main[0]))
            y = self.normalized(y, next(pairs), *main[1])
            if shortcut:
                x = self.normalized(x, next(pairs), *shortcut)
            x = tf.nn.relu(x + y)
        return tf.reduce_mean(tf.cast(x, tf.float32), (1, 2))

    def normalized(self, x, pair, filters, size, stride):
        """A convolution and its batch normalization, fused."""
        margin = size // 2 if size % 2 else 0
        if stride > 1:
            x = tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        padding = "SAME" if stride == 1 else "VALID"
        x = tf.nn.conv2d(x, tf.cast(pair["kernel"], self.dtype), stride, padding)
        x, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=pair["scale"],
            offset=pair["offset"],
            mean=pair["mean"],
            variance=pair["variance"],
            epsilon=1e-5,
            exponential_avg_factor=0.1,
            is_training=True,
        )
        pair["mean"].assign(mean)
        pair["variance"].assign(variance)
        return x


def step(net, images, targets, jit=False):
    """A function that trains the network once by SGD on the squared error, and returns the loss."""
    x, y = tf.constant(images), tf.constant(targets)
    variables = net.trainable_variables
    velocities = [tf.Variable(tf.zeros_like(v)) for v in variables]

    @tf.function(jit_compile=jit)
    def train(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(net(x) - y))
        for variable, velocity, gradient in zip(
            variables, velocities, tape.gradient(loss, variables), strict=True
        ):
            velocity.assign(0.9 * velocity - 0.03 * gradient)
            variable.assign_add(velocity)
        return loss

    return lambda: float(train(x, y))
