"""The nearest images of a few queries, as a list, as a picture and as a page to click through."""

import base64
import html
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from keras import ops

from instdisc_core.data import ImageSource
from instdisc_core.data.manifest import printable
from instdisc_core.evaluation.labels import common_labels
from instdisc_core.evaluation.positions import positions_in
from instdisc_core.memory_bank import MemoryBank
from instdisc_core.quantized_rows import QuantizedRows
from instdisc_core.registry import get_bank_ops
from instdisc_core.validation import (
    check_features,
    check_indices,
    require,
    require_count,
    require_finite,
)

AGREEING, DIFFERING = "#029E73", "#D55E00"


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Queries, and the images that were found for each, best first.

    Attributes:
        queries: the ImageSource that the queries are from.
        gallery: the ImageSource that was searched.
        indices: of the queries in their source, ``(q,)``.
        neighbors: indices in the gallery, ``(q, k)``.
        similarities: cosines, ``(q, k)``.
    """

    queries: ImageSource
    gallery: ImageSource
    indices: np.ndarray
    neighbors: np.ndarray
    similarities: np.ndarray

    @property
    def agreement(self):
        """The share of each query's neighbors with its label, ``(q,)``; None without labels."""
        return None if self._same is None else self._same.mean(axis=1)

    @cached_property
    def _same(self):
        """Whether each neighbor has its query's label, ``(q, k)``; None without labels."""
        if self.queries.labels is None or self.gallery.labels is None:
            return None
        theirs, ours = common_labels(self.gallery, self.queries)
        return theirs[self.neighbors] == ours[self.indices][:, None]

    def best(self, count):
        """The queries that fare best, first; by agreement, and then by similarity."""
        return self._ranked(count, -1)

    def worst(self, count):
        """The queries that fare worst, the worst first."""
        return self._ranked(count, 1)

    def names(self):
        """Of each query, its name and the names found: a list of pairs."""
        return [
            (self.queries.names[i], [self.gallery.names[j] for j in found])
            for i, found in zip(self.indices, self.neighbors, strict=True)
        ]

    def plot(self, path, title=""):
        """Draw a query a row, its neighbors to the right, with names and similarities, as PNG.

        Where labels are known a frame says whether a neighbor has the query's.
        """
        from matplotlib.figure import Figure

        queries, k = self.neighbors.shape
        figure = Figure((1.3 * (k + 1), 1.55 * queries + 0.5), layout="constrained")
        figure.suptitle(printable(title), parse_math=False)
        axes = figure.subplots(queries, k + 1, squeeze=False)
        for row, (i, found, cosines) in enumerate(self._rows()):
            _show(axes[row, 0], self.queries.image(i), printable(self.queries.names[i]), "#000000")
            for column, (j, cosine) in enumerate(zip(found, cosines, strict=True)):
                name = f"{printable(self.gallery.names[j])}\n{cosine:.2f}"
                color = self._color(row, column)
                _show(axes[row, column + 1], self.gallery.image(j), name, color)
        figure.savefig(path, dpi=110)

    def save_html(self, path, title="Nearest neighbors"):
        """Write one HTML file, pictures and all, with a row for each query.

        A name that is not valid UTF-8 is shown with replacement characters.
        """
        rows = []
        for row, (i, found, cosines) in enumerate(self._rows()):
            cells = [_figure(self.queries.image(i), self.queries.names[i], "", "query")]
            for column, (j, cosine) in enumerate(zip(found, cosines, strict=True)):
                style = f"border-color: {self._color(row, column)}"
                name = self.gallery.names[j]
                cells.append(_figure(self.gallery.image(j), name, f"{cosine:.3f}", "", style))
            rows.append(f'<div class="row">{"".join(cells)}</div>')
        note = "" if self.agreement is None else _LEGEND
        text = _PAGE.format(title=html.escape(printable(title)), rows="\n".join(rows), legend=note)
        Path(path).write_text(text, encoding="utf-8")

    def _rows(self):
        return zip(self.indices, self.neighbors, self.similarities, strict=True)

    def _color(self, row, column):
        if self._same is None:
            return "#888888"
        return AGREEING if self._same[row, column] else DIFFERING

    def _ranked(self, count, sign):
        require_count("count", count)
        agreement = np.zeros(len(self.indices)) if self.agreement is None else self.agreement
        order = np.lexsort((sign * self.similarities.mean(axis=1), sign * agreement))[:count]
        return Retrieval(
            self.queries,
            self.gallery,
            self.indices[order],
            self.neighbors[order],
            self.similarities[order],
        )


def retrieve(features, queries, gallery_features, gallery, k=10, indices=None, backend=None):
    """Find the ``k`` nearest images of each query.

    Args:
        features: unit embeddings of all images in ``queries``, ``(q, embedding_dim)``.
        queries: their ImageSource.
        gallery_features: unit embeddings of the images in ``gallery``, ``(n, embedding_dim)``; or
            their MemoryBank, which is better than its ``rows``: it knows which images they belong
            to, and ``gallery`` is checked against that.
        gallery: their ImageSource. An image is not its own neighbor, where the gallery has it too:
            where an image of the same name has the same bytes, see ``positions_in``.
        k: how many to find, at most ``n``, or ``n - 1`` where the gallery has a query itself.
        indices: which of the queries to look up, integers; None is all.
        backend: see ``registry.get_bank_ops``.

    Returns:
        A Retrieval.

    Raises:
        ValueError: embeddings that are not those of the sources, or not finite; a gallery that is
            not the data of the bank; or too large a ``k``.

    Source:
        Wu et al., section 4: ten neighbors of queries, best and worst cases.

    Example:
    ```python
    found = retrieve(model.predict(photos.ordered()), photos, model.memory_bank, photos, k=5)
    found.worst(10).plot("worst.png")
    found.save_html("neighbors.html")
    ```
    """
    if isinstance(gallery_features, MemoryBank):
        if gallery_features.manifest is not None:
            gallery_features.manifest.check(gallery.manifest, "a gallery")
        gallery_features = gallery_features.rows
    features, gallery_features = (
        rows if hasattr(rows, "shape") else np.asarray(rows, "float32")
        for rows in (features, gallery_features)
    )
    for name, rows, source in (
        ("features", features, queries),
        ("gallery_features", gallery_features, gallery),
    ):
        require(
            len(rows.shape) == 2 and rows.shape[0] == len(source),
            f"{name} of shape {tuple(rows.shape)} for {len(source)} images",
            "one embedding for each image",
        )
    indices = np.arange(len(queries)) if indices is None else indices
    indices = np.asarray(check_indices(indices, len(queries)))
    own = positions_in(gallery, queries)[indices]
    itself = bool(np.any(own >= 0))
    require_count("k", k)
    require(k + itself <= len(gallery), f"k={k}", f"at most {len(gallery) - itself}")
    features = check_features(features, gallery_features.shape[1])
    chosen = ops.take(ops.convert_to_tensor(features, "float32"), indices, axis=0)
    require_finite("features", ops.convert_to_numpy(chosen), indices)
    if not isinstance(gallery_features, QuantizedRows):
        require_finite("gallery_features", gallery_features)
    found = get_bank_ops(backend).top_k(chosen, gallery_features, k + itself)
    similarities, neighbors = (ops.convert_to_numpy(part) for part in found)
    if itself:
        other = neighbors != own[:, None]
        other[other.all(axis=1), -1] = False  # not among them: leave out the last
        shape = len(indices), k
        similarities, neighbors = (
            similarities[other].reshape(shape),
            neighbors[other].reshape(shape),
        )
    return Retrieval(queries, gallery, indices, neighbors, similarities)


def _show(axis, image, name, color):
    axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(_shortened(name), fontsize=6, parse_math=False)
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=2)


def _shortened(name, length=22):
    """A name whose first line fits below a picture."""
    first, *rest = name.split("\n")
    first = first if len(first) <= length else "..." + first[3 - length :]
    return "\n".join([first, *rest])


def _figure(image, name, caption, kind, style=""):
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    name = html.escape(printable(name))
    return (
        f'<figure class="{kind}" style="{style}"><img src="data:image/png;base64,{source}" '
        f'alt="{name}" title="{name}"><figcaption>{name}<br>{caption}</figcaption></figure>'
    )


_LEGEND = (
    f'<p>Frames: <b style="color: {AGREEING}">the class of the query</b>, '
    f'<b style="color: {DIFFERING}">another</b>.</p>'
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }}
.row {{ display: flex; gap: .5rem; padding: .6rem 0; border-top: 1px solid #ddd; }}
figure {{ margin: 0; padding: 2px; flex: 0 1 112px; min-width: 48px; border: 3px solid #888;
  border-radius: 4px; }}
figure.query {{ border-color: #000; margin-right: 1.5rem; }}
img {{ width: 100%; display: block; image-rendering: auto; }}
figcaption {{ font-size: 11px; overflow-wrap: anywhere; text-align: center; }}
</style>
<h1>{title}</h1>
<p>The first image of a row is the query; its neighbors follow, the most similar first, with
their cosines.</p>
{legend}
{rows}
</html>
"""
