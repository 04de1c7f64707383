"""Images of neighbors, drawn with Matplotlib."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from instdisc_core.data.manifest import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

# Ten colors that differ in the common kinds of color blindness.
COLORS = ["#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC"]
COLORS += ["#8C564B", "#F2A6D9", "#7F7F7F", "#B8A900", "#56B4E9"]
QUERY, SAME_CLASS, OTHER_CLASS, UNKNOWN_CLASS = "#000000", "#029E73", "#D55E00", "#888888"


class Tile(NamedTuple):
    """One image of a row of neighbors: the query or one of its neighbors.

    Attributes:
        image: pixels ``(height, width, 3)``, uint8.
        name: of the image, printable.
        cosine: similarity to the query; None marks the query itself.
        same_class: whether it has the query's label; None where labels are not known.
    """

    image: np.ndarray
    name: str
    cosine: float | None = None
    same_class: bool | None = None

    @property
    def color(self) -> str:
        """The color of its frame."""
        if self.cosine is None:
            return QUERY
        if self.same_class is None:
            return UNKNOWN_CLASS
        return SAME_CLASS if self.same_class else OTHER_CLASS


def draw_neighbors(
    figure: "FigureBase", rows: Iterable[Sequence[Tile]], title: str = "", captions: bool = True
) -> None:
    """Draw one row of images for each query: the query, then its neighbors.

    The color of a frame says whether a neighbor has the query's label.

    Args:
        figure: Matplotlib's Figure or SubFigure to draw into.
        rows: the tiles of each query, the query first; see ``Retrieval.tiles``.
        title: of the figure.
        captions: whether to write the name and the cosine below each image.

    Example:
    ```python
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    found = retrieve(embeddings, photos, embeddings, photos, k=3, indices=[0, 1])
    draw_neighbors(figure, found.tiles(), captions=False)
    figure.savefig("neighbors.png")
    ```
    """
    rows = list(rows)
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False)
    for axis, tile in zip(axes.ravel(), (tile for row in rows for tile in row), strict=True):
        _draw(axis, tile, captions)


def _draw(axis: "Axes", tile: Tile, caption: bool) -> None:
    axis.imshow(tile.image)
    axis.set(xticks=[], yticks=[])
    if caption:
        cosine = "" if tile.cosine is None else f"\n{tile.cosine:.2f}"
        axis.set_xlabel(_shortened(tile.name) + cosine, fontsize=6, parse_math=False)
    for spine in axis.spines.values():
        spine.set(color=tile.color, linewidth=2)


def _shortened(name: str, length: int = 22) -> str:
    """The end of a name, so that it fits below an image."""
    return name if len(name) <= length else "..." + name[3 - length :]
