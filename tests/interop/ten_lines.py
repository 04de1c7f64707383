"""The script that runs unchanged on every framework: argument 1 is the objective's name."""

import sys

import keras
import numpy as np

from instdisc_core import InstanceDiscrimination

images = np.random.default_rng(0).standard_normal((60, 8)).astype("float32")
encoder = keras.layers.Dense(16, activation="relu", kernel_initializer="orthogonal")
model = InstanceDiscrimination(encoder, len(images), 8, objective=sys.argv[1], seed=0)
model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
losses = model.fit(images, np.arange(60), batch_size=16, epochs=5, verbose=0).history["loss"]
print(keras.backend.backend(), *losses)
