"""What the training examples share: flags, images, augmentation, an encoder, the closing report.

Set ``KERAS_BACKEND`` before importing this module: it imports Keras.
"""

import argparse
import math
import os
from dataclasses import dataclass

# Threads that wait should sleep: spinning, they slow a busy machine down tenfold. OpenMP reads this
# when scikit-learn or PyTorch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from instdisc_core import NCE, InfoNCE, NonParametricSoftmax, ParametricSoftmax
from instdisc_core.data import ArrayBatches, ImageFolder
from instdisc_core.evaluation import knn_accuracy

OBJECTIVES = ("softmax", "nce", "info_nce", "parametric_softmax")


def parse_arguments(description):
    """The flags that all trainers understand."""
    parser = argparse.ArgumentParser(
        description=description.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--data", default="digits", help="'digits', or a folder of images, flat or one per class")
    add("--image-size", type=int, default=32, help="side to which a folder's images are resized")
    add("--epochs", type=int, default=30)
    add("--batch-size", type=int, default=128)
    add("--temperature", type=float, default=0.3)
    add("--objective", choices=OBJECTIVES, default="softmax")
    add("--embedding-dim", type=int, default=64)
    add("--learning-rate", type=float, default=1e-3)
    add("--seed", type=int, default=0)
    return parser.parse_args()


@dataclass
class Images:
    """Images to train on and, where classes are known, images held out.

    Attributes:
        train: float32 ``(n, height, width, channels)`` in ``[0, 1]``; the position of an image is
            its instance index.
        names: what to call each of them, ``n`` strings.
        train_labels: their classes ``(n,)``, for evaluation only, or None.
        test, test_labels: the held-out images and their classes, or None.
    """

    train: np.ndarray
    names: list
    train_labels: np.ndarray | None = None
    test: np.ndarray | None = None
    test_labels: np.ndarray | None = None


def load_images(data="digits", image_size=32, seed=0):
    """The images that ``--data`` names.

    Where classes are known, a fifth of each is held out. The order depends on the seed and the
    file names alone, so that index ``i`` is the same image in every run.

    Args:
        data: ``"digits"``, scikit-learn's 1,797 digits of 8 x 8 pixels, or a folder.
        image_size: side in pixels to which the images of a folder are resized.
        seed: of the split.

    Raises:
        ValueError: the folder has no images, or broken ones.
    """
    if data == "digits":
        digits = load_digits()
        images = (digits.images[..., None] / 16).astype("float32")
        names, labels = [f"digit {i}" for i in range(len(images))], digits.target
    else:
        folder = ImageFolder(data, image_size, duplicates="keep")
        images = folder.images().astype("float32") / 255
        names, labels = folder.names, folder.labels
    if labels is None:
        return Images(images, names)
    train, test = train_test_split(
        np.arange(len(images)), test_size=0.2, stratify=labels, random_state=seed
    )
    names = [names[i] for i in train]
    return Images(images[train], names, labels[train], images[test], labels[test])


def training_batches(images, args):
    """Batches of training images and their instance indices, in an order of seed and epoch.

    The loop sets ``batches.epoch`` at the start of each epoch.
    """
    indices = np.arange(len(images.train), dtype="int32")
    return ArrayBatches(images.train, indices, batch_size=args.batch_size, seed=args.seed)


class RandomAffine(layers.Layer):
    """Rotates, zooms, shears and shifts every image by amounts of its own.

    Keras has a layer for each of the four. Composed into one matrix they resample the image once
    instead of four times, which keeps it sharp and costs a quarter.

    Args:
        rotation: largest angle, in degrees.
        zoom, shear: largest change of either axis, as a fraction.
        shift: largest shift, as a fraction of the image's side.
        seed: integer that makes a run repeatable.
    """

    def __init__(self, rotation=15.0, zoom=0.15, shear=0.15, shift=0.1, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shear, self.shift = rotation, zoom, shear, shift
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images):
        """Augmented images, of the shape of ``images``: ``(batch, height, width, channels)``."""
        batch, (height, width) = ops.shape(images)[0], images.shape[1:3]

        def draw(largest):
            return keras.random.uniform((batch,), -largest, largest, seed=self.seed_generator)

        angle, shear = draw(math.radians(self.rotation)), draw(self.shear)
        zoom_x, zoom_y = 1 + draw(self.zoom), 1 + draw(self.zoom)
        cos, sin = ops.cos(angle), ops.sin(angle)
        # Where in the input an output pixel (x, y) comes from: (a x + b y + c, d x + e y + f).
        a, b = zoom_x * cos, zoom_y * (shear * cos - sin)
        d, e = zoom_x * sin, zoom_y * (shear * sin + cos)
        center_x, center_y = (width - 1) / 2, (height - 1) / 2
        c = center_x - a * center_x - b * center_y + draw(self.shift) * width
        f = center_y - d * center_x - e * center_y + draw(self.shift) * height
        zero = ops.zeros_like(a)
        matrix = ops.stack([a, b, c, d, e, f, zero, zero], axis=1)
        return ops.image.affine_transform(images, matrix, data_format="channels_last")


def build_encoder(image_shape):
    """A small convolutional network, from ``(batch, *image_shape)`` to ``(batch, 128)``.

    Without batch normalization it easily starts in a corner from which it does not escape: all
    embeddings alike, and a loss of log n.
    """
    blocks = [keras.Input(image_shape)]
    for filters in (32, 64, 128):
        if filters > 32:
            blocks.append(layers.MaxPooling2D())
        blocks.append(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        blocks.append(layers.BatchNormalization(momentum=0.9))
        blocks.append(layers.ReLU())
    return keras.Sequential([*blocks, layers.GlobalAveragePooling2D()], name="encoder")


def build_objective(name, temperature, seed):
    """The objective that ``--objective`` names."""
    if name == "softmax":
        return NonParametricSoftmax(temperature)
    if name == "parametric_softmax":
        return ParametricSoftmax(temperature, seed=seed)
    sampled = {"nce": NCE, "info_nce": InfoNCE}[name]
    return sampled(num_negatives=1024, temperature=temperature, seed=seed)


def embed_all(embed, images, batch_size=256):
    """``embed`` applied to all images, a batch at a time: a NumPy array of unit rows."""
    starts = range(0, len(images), batch_size)
    batches = [ops.convert_to_numpy(embed(images[s : s + batch_size])) for s in starts]
    return np.concatenate(batches)


def report(embed, images, bank):
    """Print what the embedding is worth, judged by its neighbors in the memory bank.

    Args:
        embed: function from a NumPy batch of images to their unit embeddings.
        images: an Images.
        bank: the MemoryBank that was trained with it.
    """
    if images.test is not None:
        embeddings = embed_all(embed, images.test)
        k = min(10, bank.num_instances)
        accuracy = knn_accuracy(embeddings, images.test_labels, bank.rows, images.train_labels, k=k)
        print(f"kNN accuracy on {len(images.test)} held-out images (k={k}): {accuracy:.3f}")
        return
    queries = np.linspace(0, bank.num_instances - 1, min(5, bank.num_instances)).astype(int)
    nearest = bank.search(embed_all(embed, images.train[queries]), k=min(4, bank.num_instances))[1]
    print("Nearest neighbors:")
    for query, found in zip(queries, ops.convert_to_numpy(nearest), strict=True):
        others = [images.names[i] for i in found if i != query][:3]
        print(f"  {images.names[query]}: {', '.join(others)}")
