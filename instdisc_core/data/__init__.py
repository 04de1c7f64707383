"""Images that know their instance index: folders, arrays, data sets, and batches of them."""

from instdisc_core.data.any_source import image_source
from instdisc_core.data.batches import ImageBatches
from instdisc_core.data.folder import ImageFolder
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.sources import ImageArray, ImageDataset, ImageSource

__all__ = [
    "ImageArray",
    "ImageBatches",
    "ImageDataset",
    "ImageFolder",
    "ImageSource",
    "Manifest",
    "image_source",
]
