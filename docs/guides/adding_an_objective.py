"""
Title: Adding an objective
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: A loss of your own over the memory bank, from its equation to a training and a test.
Accelerator: None
"""

"""
The loss here is alignment and uniformity (Wang and Isola, ICML 2020), with the rows `v_j` of the
memory bank in place of the other images of the batch:

    L_i = |f_i - v_i|^2 + log mean_j exp(-t |f_i - v_j|^2)

## Written down

An `Objective` is a loss for each image of a batch, in operations that the framework differentiates.
Features `f` and rows `v` have length 1, so `|f - v|^2 = 2 - 2 f.v`.
"""

import math

import keras
from keras import ops

from instdisc_core import MemoryBank, Objective
from instdisc_core.objectives import ClosedFormObjective


class AlignmentUniformity(Objective):
    """Alignment with an image's own row, and uniformity over all rows."""

    def image_losses(self, features, indices, bank, training):
        t = 1 / (2 * self.temperature)
        own = bank.lookup(indices)
        alignment = 2 - 2 * ops.sum(features * own, axis=1)
        rows = bank.lookup(ops.arange(bank.num_rows))
        scores = ops.matmul(features, ops.transpose(rows))  # (batch, n)
        uniformity = ops.logsumexp(t * (2 * scores - 2), axis=1) - math.log(bank.num_rows)
        return alignment + uniformity


"""
That is all that a training needs. It holds `batch x n` scores, and their gradient, which is too
much for many images.

## In closed form

With `temperature = 1 / (2 t)` the sum is `log sum_j exp(f.v_j / temperature)`, which `bank.attend`
computes in one pass over the rows, together with the expected row `sum_j p_j v_j`, the softmax of
the scores. The gradient follows by hand, so nothing that reads the bank is differentiated:

    dL_i/df = -2 v_i + 2 t sum_j p_ij v_j
"""


@keras.saving.register_keras_serializable(package="guides")
class StreamedAlignmentUniformity(ClosedFormObjective):
    """The same, with its gradient, and without the scores."""

    def losses_and_gradient(self, features, indices, bank, training):
        t = 1 / (2 * self.temperature)
        own = bank.lookup(indices)
        log_sum, expected_row = bank.attend(features, self.temperature)
        alignment = 2 - 2 * ops.sum(features * own, axis=1)
        uniformity = log_sum - 2 * t - math.log(bank.num_rows)
        return alignment + uniformity, 2 * t * expected_row - 2 * own


"""
## Held against each other

Both are the same function. For an objective of the package, `testing.ObjectiveConformance` compares
losses and gradients with a float64 reference, eager and compiled, and checks saving, bad input and
evaluation; subclass it in a test.
"""

import numpy as np

bank = MemoryBank(num_instances=50, embedding_dim=16, seed=0)
indices = np.array([3, 41, 7])
features = ops.normalize(np.random.default_rng(0).normal(size=(3, 16)).astype("float32"))
plain, streamed = (
    ops.convert_to_numpy(kind(temperature=0.25)(features, indices, bank))
    for kind in (AlignmentUniformity, StreamedAlignmentUniformity)
)
np.testing.assert_allclose(plain, streamed, rtol=1e-5)

"""
## Trained

Any model of the package takes it, alone or in a sum: `objective + 0.5 * FeatureDecorrelation(2.0)`.
"""

from instdisc_core import InstanceDiscrimination
from instdisc_core.augmentation import simclr_augmentation
from instdisc_core.data import ImageFolder
from instdisc_core.encoders import resnet

photos = ImageFolder("photos", size=32, corrupt="skip")
model = InstanceDiscrimination(
    resnet(10, stem="patch", width=32, include_preprocessing=True),
    num_instances=len(photos),
    embedding_dim=64,
    objective=StreamedAlignmentUniformity(temperature=0.25),
    augmenter=simclr_augmentation(32, strength=0.5, blur=False, seed=0),
    seed=0,
)
model.compile(optimizer=keras.optimizers.AdamW(1e-3))
model.fit(photos.batches(64, seed=0), epochs=20)
model.save("model.keras")  # the decorator above lets Keras load it
