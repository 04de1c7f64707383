"""
Title: Pretrained encoders
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: Search your photos with a published network, without training; then adapt it to them.
Accelerator: GPU, or none for small images
"""

"""
A network that learned from a million images may know more than yours will see. Its features are
embeddings at once, without any training. Here it is one of `keras.applications`, which runs on any
framework. `"torchvision:resnet18"` and `"timm:resnet18"` work on PyTorch, with these packages
installed.

The package never downloads. Fetch the file of weights yourself, for `keras.applications` the one
whose name ends in `notop` or `no_top`.

## Without training
"""

from instdisc_core.data import ImageFolder
from instdisc_core.index import ImageIndex
from instdisc_core.pretrained import pretrained_encoder

photos = ImageFolder("photos", size=64, corrupt="skip")
encoder = pretrained_encoder("keras:MobileNet", weights="mobilenet.h5", size=64, alpha=0.25)
index = ImageIndex.from_encoder(encoder, photos)
print(index.names[0], "is like", [index.names[j] for j in index.neighbors(3, [0]).indices[0]])

"""
The encoder has the preprocessing that its publisher states, and takes pixels in `[0, 255]`.
`from_encoder` subtracts the mean of your photos' features: features of such networks are never
negative, and without that all photos are alike. It takes any Keras model, and any `nn.Module` with
`preprocessing="torch"`, so any encoder that you trained elsewhere.

## Is it good for these photos?

Without labels, the verdict says how often a changed copy of a photo (darker, covered, compressed,
warped) finds that photo: by the embedding, by the same network with random weights, and by raw
pixels.
"""

from instdisc_core.evaluation import verdict
from instdisc_core.frozen_encoder import frozen

print(verdict(frozen(encoder), photos))

"""
## Adapt it

A recipe trains it further on your photos, with a lower learning rate than the new head. This needs
Keras 3.15. Compare the verdicts before and after; the recipe prints one at its end.
"""

from instdisc_core import recipes

recipe = recipes.get(
    "small-cifar10",
    image_size=64,
    crop_size=64,
    encoder="keras:MobileNet",
    encoder_settings=(("alpha", 0.25),),
    weights="mobilenet.h5",
    encoder_rate=0.1,
)
model = recipe.train(photos, output="adapted", seed=0)

"""
The saved model holds the encoder, and needs the file no more.
[What adapting gained](../experiments.md#encoders-from-a-file-of-weights) on one data set.

## Give it to others

The encoder of an index, from pixels to unit rows, is one file of PyTorch, ONNX, TensorFlow or
LiteRT. Its embeddings are compared with the model's before the file is there.
"""

import keras

from instdisc_core.exports import export

path = {"torch": "encoder.pt2", "tensorflow": "encoder"}.get(keras.backend.backend())
if path is not None:
    export(index, path, format={"encoder": "saved-model"}.get(path))
