"""The manifest of images that are added to others."""

from instdisc_core.data import Manifest


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
