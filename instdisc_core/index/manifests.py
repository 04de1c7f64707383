"""The manifest of an index whose images change."""

import numpy as np

from instdisc_core.data import ImageSource, Manifest
from instdisc_core.data.names import listed
from instdisc_core.evaluation import positions_in
from instdisc_core.validation import require


def changes(manifest: Manifest, images: ImageSource, drop: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which images of a manifest stay, and which of ``images`` are new, as indices.

    Raises:
        ValueError: an image has the name of one that stays, and other bytes.
    """
    kept = np.arange(len(manifest))
    if drop:
        kept = np.flatnonzero(positions_in(images, manifest) >= 0)
    new = np.flatnonzero(positions_in(manifest, images) < 0)
    known = {manifest.names[i] for i in kept}
    changed = [images.names[i] for i in new if images.names[i] in known]
    require(
        not changed,
        f"{len(changed)} images with names of the index and other contents: {listed(changed)}",
        "new images",
        "Set drop=True, which embeds them again; or give them other names.",
    )
    return kept, new


def joined(old: Manifest, new: Manifest) -> Manifest:
    """The manifest of two sets of images, one after the other."""
    names = (*old.names, *new.names)
    there, skipped = set(names), {**old.skipped, **new.skipped}
    return Manifest(
        names,
        (*old.sizes, *new.sizes),
        (*old.modified, *new.modified),
        (*old.digests, *new.digests),
        {name: why for name, why in skipped.items() if name not in there},
    )
