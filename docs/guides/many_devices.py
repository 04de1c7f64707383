"""
Title: Many devices
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: Several GPUs train one model with one memory bank, by the tools of your framework.
Accelerator: several GPUs; a processor is enough to try it
"""

"""
Each device computes with its part of each batch. `fit` gathers the embeddings of all parts, so
loss, gradient and bank are those that one device finds for the whole batch.

This guide trains on two devices and continues on one. It runs on PyTorch, TensorFlow and JAX, and
without GPUs: two processes or two virtual devices share the processor.

## What is trained

Encoder and data are in a file of their own, for one device and for many. `Checkpoints` continues a
run that is started again.
"""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

Path("training.py").write_text("""
import keras
from keras import layers

from instdisc_core import Checkpoints, InstanceDiscrimination, NonParametricSoftmax
from instdisc_core.data import ImageFolder

photos = ImageFolder("photos", size=32, corrupt="skip")


def build(**settings):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((32, 32, 3)), layers.Rescaling(1 / 127.5, -1)]
    parts += [layers.Conv2D(32, 3, strides=2, activation="gelu"), layers.GlobalAveragePooling2D()]
    settings |= {"objective": NonParametricSoftmax(temperature=0.2), "seed": 0}
    model = InstanceDiscrimination(keras.Sequential(parts), len(photos), **settings)
    model.compile(keras.optimizers.SGD(0.03, momentum=0.9))
    return model


def fit(model, epochs, folder):
    batches = photos.batches(8, seed=0)  # images of all devices together
    model.fit(batches, epochs=epochs, callbacks=[Checkpoints(folder)])
""")

"""
## Whole bank or divided rows

By default each device stores all rows of the bank. For more images than fit, divide the rows:

| | PyTorch | TensorFlow | JAX |
| --- | --- | --- | --- |
| whole bank | default | default | `DataParallel` |
| divided rows | `sharded=True` | not possible | `ModelParallel` with `layout_map` |

The results are the same. What devices send in a step does not depend on the number of images.

## PyTorch: torchrun

The process group is made before the model is built. Every rank reads its own part of each batch.
All ranks call `save`, which gathers the rows that they hold.
"""

SCRIPTS = {}
SCRIPTS["torch"] = """
import os

import torch
import torch.distributed as dist

if dist.is_torchelastic_launched():  # by torchrun
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()

import training

model = training.build(sharded=True)
training.fit(model, epochs=2, folder="run")
model.save("model.keras")  # a whole bank: only if model.communicator.process == 0
if dist.is_initialized():
    dist.destroy_process_group()
"""

"""
## TensorFlow: MirroredStrategy

The model is built in the scope of the strategy, which takes all GPUs if it is given no list.
`fit` of Keras takes one machine; for several there is a loop in `examples/train_tensorflow.py`.
"""

SCRIPTS["tensorflow"] = """
import tensorflow as tf

devices = None
if not tf.config.list_physical_devices("GPU"):  # to try it
    processor = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, two)
    devices = ["CPU:0", "CPU:1"]

import training

with tf.distribute.MirroredStrategy(devices).scope():
    model = training.build()
training.fit(model, epochs=2, folder="run")
model.save("model.keras")
"""

"""
## JAX: keras.distribution

A distribution is set before the model is built. JAX then computes with divided arrays as with any
others. `layout_map` names the variables whose rows are divided: those of the bank.
"""

SCRIPTS["jax"] = """
import keras

from instdisc_core import layout_map

devices = keras.distribution.list_devices()
mesh = keras.distribution.DeviceMesh((len(devices),), ["batch"], devices)
keras.distribution.set_distribution(
    keras.distribution.ModelParallel(layout_map=layout_map(mesh), batch_dim_name="batch")
)

import training

model = training.build()
training.fit(model, epochs=2, folder="run")
model.save("model.keras")
"""

"""
## Start it

`torchrun --nproc-per-node 2 train.py` on PyTorch, `python train.py` on the others. The XLA flag
gives JAX two devices where there are no GPUs.
"""

backend = keras.backend.backend()
Path("train.py").write_text(SCRIPTS[backend])
torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
subprocess.run(
    [sys.executable, *(torchrun if backend == "torch" else []), "train.py"],
    env={**os.environ, "XLA_FLAGS": flags},
    check=True,
)

"""
If a process dies, the others end with an error. Start the script again: `Checkpoints` continues.

## Continue on one device

A file holds the whole bank, divided or not. It loads with any number of devices, on any framework.
Here one device continues the run for two more epochs. Then it trains all four, from the start.
"""

import training

continued = training.build()
training.fit(continued, epochs=4, folder="run")

alone = training.build()
training.fit(alone, epochs=4, folder="alone")

rows = [model.memory_bank.bank_ops.dump(model.memory_bank.rows)[0] for model in (continued, alone)]
print("largest difference of two banks:", np.abs(rows[0] - rows[1]).max())

"""
They are equal up to the order in which numbers are added. So are losses, weights, log Z,
`evaluate` and `search`, also for NCE, for images that repeat in a batch, and for a last batch with
fewer images than devices. Two things are not as on one device: augmentation and dropout draw
other numbers on each device (on JAX they draw the same as one), and batch normalization of
TensorFlow and of `torch.nn` normalizes each device's own images unless it is told to synchronize.

The model in the file is one for search and export, as any other.
"""

saved = keras.saving.load_model("model.keras")
nearest = saved.memory_bank.search(saved.memory_bank.lookup(np.arange(1)), k=2).indices[0, 1]
print(training.photos.names[0], "is like", training.photos.names[int(nearest)])

"""
[Several devices](../devices.md) has a loop of your own, several processes of JAX, what a step
sends, and what is not supported.
"""
