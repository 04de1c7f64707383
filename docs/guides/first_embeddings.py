"""
Title: First embeddings in five minutes
Author: The instdisc_core developers
Date created: 2026/11/27
Last modified: 2026/11/27
Description: From a folder of photos without labels to a page of neighbors, and to a search.
Accelerator: None
"""

"""
## Install

In a checkout of the project:

```
pip install torch --index-url https://download.pytorch.org/whl/cpu   # without a GPU
pip install '.[torch,evaluate,index]'   # or tensorflow, or jax, in place of torch
```

## Read the folder
"""

from instdisc_core.data import ImageFolder

photos = ImageFolder("photos", size=32, corrupt="skip", duplicates="drop", manifest="photos.csv")
print(photos.manifest.skipped)

"""
JPEG, PNG, WebP, TIFF and the other usual formats become 32 x 32 pixels of RGB: the largest central
square, resized. Larger images show more and cost more: the time of an epoch grows with their area.

A file that is broken, not an image, or larger than 256 MiB is skipped and listed with the reason;
`corrupt="raise"` raises an error that names all of them instead. Copies are skipped because the
method pushes every image away from every other, and would push an image away from itself.

`photos.csv` is the manifest. It says which file is image 1234, and holds sizes and hashes. Next
time the folder is read in the same order and checked: missing or changed files are an error that
names them, and new ones are left out with a warning, because the rows of a trained memory bank
belong to the files that it was trained on.

## Train
"""

from instdisc_core import recipes
from instdisc_core.callbacks import BankHealth, plot_log

recipe = recipes.get("small-cifar10")
model = recipe.train(photos, output="found", seed=0, callbacks=[BankHealth(photos)])
plot_log("found/log.csv", "found/log.png")

"""
The recipe prints every setting, from the augmentation to the learning rate, and where it differs
from its source. `recipes.for_images("photos", minutes=10)` chooses one for your photos, your
machine and your time. Run again after an interruption, the training continues from the last
checkpoint in `found/`, with the same numbers that an uninterrupted run has.

![Loss and health over the epochs](log.png)

(Here and below: 3,000 images of CIFAR-10, 20 epochs, a few minutes on one processor core.) What to
look at, without any label: the loss falls; *positive rank*, the position of an image's own row when
all rows are sorted by similarity to its new embedding, falls toward 1; *neighbor agreement* rises
as the neighborhoods settle; *uniformity* falls as the embeddings spread. If all embeddings become
the same, `BankHealth` warns and says why.

## Look at the neighbors
"""

from instdisc_core.evaluation import plot_tsne, whitened
from instdisc_core.index import ImageIndex

index = ImageIndex.from_model(whitened(model, photos), photos)
pages = index.retrieve(photos, photos, k=9, indices=range(min(40, len(photos))))
pages.save_html("found/neighbors.html", "What is alike")
plot_tsne(index.rows, photos, "found/tsne.png")
index.save("found/index")

"""
![The page of neighbors](page.png)

The page (here of scikit-learn's digits, compared by their pixels) is one file that contains its
pictures, and can be sent to anyone. Whitened features of the encoder are usually better for a
search than the embedding that was trained. A page of all images, with near-duplicates, outliers,
clusters and a map to zoom, is a folder:
"""

index.save_page("found/page", photos)

"""

## Find the neighbors of a new image

This can be another day and another process: `ImageIndex.load` verifies the files, and embeds new
images with the encoder that was saved next to the rows.
"""

index = ImageIndex.load("found/index")
new = ImageFolder("new", size=32)
scores, neighbors = index.search(new, k=5)
for name, row in zip(new.names, neighbors, strict=True):
    print(name, "is like", [index.names[j] for j in row])

"""
The same without Python is `instdisc train photos`, `instdisc search new/cat.jpg`, `instdisc
outliers` and `instdisc report`; each has `--help`. `instdisc serve` shows the page in a browser,
and finds the neighbors of a picture that you drop on it.

## If you have labels for a few

Where a folder has one subfolder per class, these are the labels. (If subfolders are something else,
such as years, say so with `ImageFolder(..., labels=None)`.) The report is a table (`report.txt`,
`.csv`, `.json`) and pictures. It contains all measures by default, of which fine-tuning takes
minutes.
"""

from instdisc_core.evaluation import evaluate

train, test = ImageFolder("train", size=32), ImageFolder("test", size=32)
print(evaluate(model, train, test, "report", measures=["knn", "linear"]))
