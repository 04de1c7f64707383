"""Similar images, near duplicates, odd ones, clusters: what an embedding is searched for."""

from instdisc_core.index.files import DamagedIndex
from instdisc_core.index.image_index import ImageIndex
from instdisc_core.index.near_duplicates import DEFAULT_THRESHOLD, NearDuplicates
from instdisc_core.index.structure import ImageClusters, Outliers

__all__ = [
    "DEFAULT_THRESHOLD",
    "DamagedIndex",
    "ImageClusters",
    "ImageIndex",
    "NearDuplicates",
    "Outliers",
]
