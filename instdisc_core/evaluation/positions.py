"""Which images of one source are also in another."""

import numpy as np

from instdisc_core.data import ImageSource, Manifest


def positions_in(gallery: ImageSource | Manifest, queries: ImageSource | Manifest) -> np.ndarray:
    """The index in ``gallery`` of each image of ``queries``: integers ``(q,)``, -1 if it has none.

    Images are compared by their data: two images are the same if their names and the digests of
    their bytes are equal. So a second source of the same folder, and a subset of it, have all
    their images in the first. Images without digests (those of an ``ImageDataset`` without a
    cache) are found only if ``queries`` is ``gallery`` itself. A manifest stands for its source.

    Example: ``known = positions_in(train, test) >= 0  # test images that were trained on``
    """
    ours, theirs = (s.manifest if isinstance(s, ImageSource) else s for s in (queries, gallery))
    if ours is theirs:
        return np.arange(len(gallery))
    images = (zip(m.names, m.digests, strict=True) for m in (theirs, ours))
    known = {image: j for j, image in enumerate(next(images)) if image[1]}
    return np.array([known.get(image, -1) for image in next(images)])
