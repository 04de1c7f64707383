"""Which images of one source are also in another."""

import numpy as np

from instdisc_core.data import ImageSource


def positions_in(gallery: ImageSource, queries: ImageSource) -> np.ndarray:
    """The index in ``gallery`` of each image of ``queries``: integers ``(q,)``, -1 if it has none.

    Images are compared by their data: two images are the same if their names and the digests of
    their bytes are equal. So a second source of the same folder, and a subset of it, have all
    their images in the first. Images without digests (those of an ``ImageDataset`` without a
    cache) are found only if ``queries`` is ``gallery`` itself.

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
