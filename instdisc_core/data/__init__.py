"""Images that know their instance index: folders, arrays, data sets, and batches of them."""

from instdisc_core.data.any_source import image_source
from instdisc_core.data.array import ImageArray
from instdisc_core.data.batches import ArrayBatches, ImageBatches
from instdisc_core.data.dataset import ImageDataset
from instdisc_core.data.decoding import decode
from instdisc_core.data.folder import ImageFolder
from instdisc_core.data.manifest import Manifest
from instdisc_core.data.order import SlidingWindow
from instdisc_core.data.source import ImageSource
from instdisc_core.validation import OtherImages

__all__ = [
    "ArrayBatches",
    "ImageArray",
    "ImageBatches",
    "ImageDataset",
    "ImageFolder",
    "ImageSource",
    "Manifest",
    "OtherImages",
    "SlidingWindow",
    "decode",
    "image_source",
]
