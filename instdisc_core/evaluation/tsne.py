"""The embedding as a picture: t-SNE."""

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from instdisc_core.data import ImageSource
from instdisc_core.data.names import printable
from instdisc_core.evaluation.pictures import COLORS
from instdisc_core.validation import require, require_count, require_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


MOST_CELLS, SIDE = 24, 64  # of the grid of thumbnails to each side; pixels of a thumbnail


class TSNEPositions(NamedTuple):
    """Where t-SNE puts the images.

    Attributes:
        positions: ``(m, 2)``, float32.
        indices: which image each of them is, sorted integers ``(m,)``.
    """

    positions: np.ndarray
    indices: np.ndarray


def tsne(embeddings: ArrayLike, num_images: int = 2000, seed: int = 0) -> TSNEPositions:
    """Positions in two dimensions by t-SNE; see ``plot_tsne``.

    Example: ``tsne(embeddings, num_images=20).positions``
    """
    from sklearn.manifold import TSNE

    rows = ops.convert_to_numpy(embeddings)
    require(len(rows) >= 4, f"{len(rows)} images", "at least 4")
    require_finite("embeddings", rows)
    require_count("num_images", num_images)
    require(num_images >= 4, f"num_images={num_images}", "at least 4")
    count = min(num_images, len(rows))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    rows = rows[chosen]
    perplexity = min(30.0, (count - 1) / 3)
    differ = rows.shape[1] > 1 and np.ptp(rows, axis=0).any()  # else scikit-learn starts from NaN
    init = "pca" if differ else "random"
    t_sne = TSNE(perplexity=perplexity, init=init, random_state=seed)
    return TSNEPositions(t_sne.fit_transform(rows), chosen)


def plot_tsne(
    embeddings: ArrayLike,
    source: ImageSource,
    path: str | os.PathLike,
    num_images: int = 2000,
    seed: int = 0,
    title: str = "",
    found: TSNEPositions | None = None,
) -> TSNEPositions:
    """Draw the embeddings in two dimensions by t-SNE, as PNG.

    Args:
        embeddings: unit rows ``(n, embedding_dim)``.
        source: the ImageSource of the images. With labels of up to ten classes each image is a
            point in the color of its class; otherwise thumbnails of the originals are drawn on a
            grid, and below it is written how many found no place.
        path: of the PNG file.
        num_images: at most this many are drawn, chosen at random.
        seed: of the choice and of t-SNE.
        title: of the picture.
        found: positions to draw, such as those of ``tsne``; None computes them.

    Returns:
        TSNEPositions of the images that were drawn.

    Raises:
        ValueError: embeddings of another number than the images or not finite, or fewer than 4
            images.

    Source:
        van der Maaten and Hinton, JMLR 2008; scikit-learn's implementation.

    Example: ``plot_tsne(model.predict(photos.ordered()), photos, "tsne.png")``
    """
    from matplotlib.figure import Figure

    figure = Figure((8, 8), layout="constrained")
    drawn = draw_tsne(figure, embeddings, source, num_images, seed, title, found)
    figure.savefig(path, dpi=150)
    return drawn


def draw_tsne(
    figure: "FigureBase",
    embeddings: ArrayLike,
    source: ImageSource,
    num_images: int = 2000,
    seed: int = 0,
    title: str = "",
    found: TSNEPositions | None = None,
) -> TSNEPositions:
    """Draw the picture of ``plot_tsne`` into a Matplotlib Figure or SubFigure.

    Example:
    ```python
    from matplotlib.figure import Figure

    draw_tsne(Figure(layout="constrained"), embeddings, photos)
    ```
    """
    rows = ops.convert_to_numpy(embeddings)
    require(
        len(rows) == len(source),
        f"{len(rows)} embeddings of {len(source)} images",
        "one for each image",
    )
    found = tsne(rows, num_images, seed) if found is None else found

    axis = figure.subplots()
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_title(printable(title), parse_math=False)
    if source.labels is not None and len(np.unique(source.labels)) <= len(COLORS):
        _draw_points(figure, axis, found, source)
        shown = len(found.indices)
    else:
        shown = _draw_thumbnails(axis, found, source)
    left_out = len(source) - shown
    if left_out:
        axis.set_xlabel(f"{shown:,} of {len(source):,} images; {left_out:,} are left out")
    return found


def _draw_points(
    figure: "FigureBase", axis: "Axes", found: TSNEPositions, source: ImageSource
) -> None:
    """A point for each image, in the color of its class."""
    labels = np.asarray(source.labels)
    classes = np.unique(labels)
    for label, color in zip(classes, COLORS, strict=False):
        x, y = found.positions[labels[found.indices] == label].T
        axis.scatter(x, y, s=8, color=color, label=str(label), linewidths=0)
    legend = figure.legend(loc="outside lower center", ncols=5, markerscale=2.5, frameon=False)
    # Matplotlib leaves out labels that begin with an underscore, so the names are set afterwards.
    for label, text in zip(classes, legend.get_texts(), strict=True):
        names = source.class_names
        name = names[label] if names is not None and label < len(names) else label
        text.set(text=printable(str(name)), parse_math=False)


def _draw_thumbnails(axis: "Axes", found: TSNEPositions, source: ImageSource) -> int:
    """The images on a grid over the whole picture; returns how many found a place.

    Each is drawn in its own cell, or in the nearest free one next to it.
    """
    cells = int(np.clip(np.ceil(1.2 * np.sqrt(len(found.indices))), 6, MOST_CELLS))
    low, extent = found.positions.min(axis=0), np.ptp(found.positions, axis=0)
    places = (found.positions - low) / np.where(extent > 0, extent, 1) * (cells - 0.001)
    axis.set(xlim=(0, cells), ylim=(0, cells))
    steps = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])
    taken: dict[tuple[int, int], int] = {}
    for place, i in zip(places, found.indices, strict=True):
        around = np.floor(place).astype(int) + steps
        inside = around[np.all((around >= 0) & (around < cells), axis=1)]
        distances = np.sum((inside + 0.5 - place) ** 2, axis=1)
        for x, y in inside[np.argsort(distances, kind="stable")]:
            if (x, y) not in taken:
                taken[x, y] = int(i)
                break
    for (x, y), i in taken.items():
        image = source.thumbnail(i, SIDE)
        half = np.array(image.shape[1::-1]) / max(image.shape[:2]) / 2
        left, bottom = np.array((x, y)) + 0.5 - half
        axis.imshow(image, extent=(left, left + 2 * half[0], bottom, bottom + 2 * half[1]))
    return len(taken)
