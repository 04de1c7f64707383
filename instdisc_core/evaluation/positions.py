"""Where the images of one source are in another."""

import numpy as np

from instdisc_core.data import ImageSource


def positions_in(gallery: ImageSource, queries: ImageSource) -> np.ndarray:
    """The index in ``gallery`` of each image of ``queries``: integers ``(q,)``, -1 if it has none.

    The data decide, not the objects: an image is the same where its name and the digest of its
    bytes are the same. So it is found by a second source of the same folder, and from a part of
    it. An image without a digest (an ``ImageDataset`` without a cache has none) is found only if
    ``queries`` is ``gallery`` itself. Of an image that is there twice, the last index counts.

    Example: ``known = positions_in(train, test) >= 0  # test images that were trained on``
    """
    if queries is gallery:
        return np.arange(len(gallery))
    theirs, ours = (
        zip(source.manifest.names, source.manifest.digests, strict=True)
        for source in (gallery, queries)
    )
    known = {image: j for j, image in enumerate(theirs) if image[1]}
    return np.array([known.get(image, -1) for image in ours])
