"""
Title: Near-duplicates
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: Photos that are nearly the same, in a folder and between two folders, and what to do.
Accelerator: None
"""

"""
Two photos are nearly the same if one is an altered copy of the other: brightened, mirrored,
resized, cropped a little, compressed again. Without Python:

```
instdisc train photos --output found
instdisc duplicates found
```

[How many altered copies this finds](../near_duplicates.md), next to a perceptual hash.

## An index
"""

from instdisc_core import recipes
from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import whitened
from instdisc_core.index import ImageIndex

photos = ImageFolder("photos", size=32, corrupt="skip", duplicates="drop", manifest="photos.csv")
model = recipes.get("small-cifar10").train(photos, "found", seed=0)
index = ImageIndex.from_model(whitened(model, photos), photos)

"""
`duplicates="drop"` leaves out files of equal bytes, which need no embedding. The index embeds each
photo together with its mirror image, so a mirrored copy has the same row.

## Pairs and groups
"""

copies = index.near_duplicates(threshold=0.5)
for (i, j), distance in zip(copies.pairs[:10], copies.distances, strict=False):
    print(f"{distance:.3f}", index.names[i], index.names[j])

"""
A distance is relative to those of other photos around the pair, so that the same threshold serves
a folder in which all photos are alike and one in which none are. A larger threshold finds more, and
more that is wrong. Look at some groups before you delete anything:
"""

first = [int(group[0]) for group in copies.groups[:20]]
if first:
    pages = index.retrieve(photos, photos, k=min(5, len(photos) - 1), indices=first)
    pages.save_html("duplicates.html", "Nearly the same")

"""
Keep one of each group, here the file with the most bytes:
"""

sizes = photos.manifest.sizes
kept = [max(group, key=lambda i: sizes[i]) for group in copies.groups]
doubled = {int(i) for group in copies.groups for i in group} - {int(i) for i in kept}
print("could be removed:", [index.names[i] for i in sorted(doubled)])

"""
## Test photos that are in the training set

A copy of a training photo in the test set makes every accuracy too good. Add the test photos to the
index, and look at the pairs of one of each:
"""

boundary = len(index)
index.add(ImageFolder("new", size=32))
pairs = index.near_duplicates(threshold=0.5).pairs
leaks = [(index.names[i], index.names[j]) for i, j in pairs if i < boundary <= j]
print("in both:", leaks)

"""
## For other tools

A table with the group of each photo, its vector and its neighbors; `instdisc export` writes it too.
"""

from instdisc_core.exports import export

export(index, "table.csv", folder="photos", k=5)  # or .parquet, .faiss, .npz
