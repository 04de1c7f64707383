"""One HTML file that shows queries and their neighbors, images included."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

from instdisc_core.data.manifest import printable
from instdisc_core.evaluation.pictures import OTHER_CLASS, SAME_CLASS, Tile


def neighbor_page(rows: Iterable[Sequence[Tile]], title: str, legend: bool) -> str:
    """The text of an HTML page with one row of images for each query.

    Args:
        rows: the tiles of each query, the query first; see ``Retrieval.tiles``.
        title: of the page.
        legend: whether to explain the colors of the frames.
    """
    shown = [f'<div class="row">{"".join(map(_figure, row))}</div>' for row in rows]
    return _PAGE.format(
        title=html.escape(printable(title)),
        rows="\n".join(shown),
        legend=_LEGEND if legend else "",
    )


def _figure(tile: Tile) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(tile.image).save(data, "PNG")
    source = base64.b64encode(data.getvalue()).decode()
    name = html.escape(tile.name)
    kind, style, cosine = "query", "", ""
    if tile.cosine is not None:
        kind, style, cosine = "", f"border-color: {tile.color}", f"{tile.cosine:.3f}"
    return (
        f'<figure class="{kind}" style="{style}"><img src="data:image/png;base64,{source}" '
        f'alt="{name}" title="{name}"><figcaption>{name}<br>{cosine}</figcaption></figure>'
    )


_LEGEND = (
    f'<p>Frames: <b style="color: {SAME_CLASS}">the same class as the query</b>, '
    f'<b style="color: {OTHER_CLASS}">another class</b>.</p>'
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
<p>Each row shows a query and then its neighbors, the most similar first. The number is the cosine
of the two embeddings.</p>
{legend}
{rows}
</html>
"""
