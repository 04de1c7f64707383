"""Commands that ask an index: what is similar, doubled, odd, and which groups there are."""

from typing import Any

import click

from instdisc_core.command_line.found import Found
from instdisc_core.command_line.group import answer, found_argument, json_option, shown, working
from instdisc_core.index import DEFAULT_THRESHOLD
from instdisc_core.validation import require

THRESHOLD = "Largest distance of a pair, relative to that to other photos."


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--index", "-i", "found", default="found", help="Folder that train or index wrote.")
@click.option("-k", default=10, type=click.IntRange(1), help="Neighbors of each image.")
@json_option
def search(images: tuple[str, ...], found: str, k: int, as_json: bool) -> None:
    """Find the photos most like IMAGES.

    A photo of the index does not find itself; a copy of it elsewhere does.

    \b
    Examples:
      instdisc search photos/cat.jpg
      instdisc search new/*.jpg --index found -k 3 --json
    """
    folder = Found(found)
    with working():
        index = folder.index()
        queries = folder.queries(images, index)
        most = len(index) - (not set(index.names).isdisjoint(queries.names))  # without itself
        require(most > 0, "an index of one photo, which is the query", "another photo")
        scores, neighbors = index.search(queries, min(k, most))
    result, rows = [], []
    for query, row, chosen in zip(queries.names, scores, neighbors, strict=True):
        pairs = [(index.names[j], float(s)) for s, j in zip(row, chosen, strict=True)]
        near = [{"name": name, "similarity": round(cosine, 6)} for name, cosine in pairs]
        result.append({"query": query, "neighbors": near})
        rows += [(query, f"{cosine:.3f}", name) for name, cosine in pairs]
    answer(as_json, result, lambda: shown(("query", "similarity", "photo"), rows))


@click.command()
@found_argument
@click.option("--threshold", "-t", default=DEFAULT_THRESHOLD, help=THRESHOLD)
@json_option
def duplicates(found: str, threshold: float, as_json: bool) -> None:
    """Find photos that are nearly the same: brightened, mirrored, resized, cropped a little.

    Mirrored copies are not found where the training did not mirror.

    \b
    Examples:
      instdisc duplicates found
      instdisc duplicates found --threshold 0.4 --json
    """
    with working():
        index = Found(found).index()
        copies = index.near_duplicates(threshold)
    names = index.names
    groups = [[names[i] for i in group] for group in copies.groups]
    result = {
        "threshold": threshold,
        "groups": groups,
        "pairs": [
            {"names": [names[a], names[b]], "distance": round(float(d), 6)}
            for (a, b), d in zip(copies.pairs, copies.distances, strict=True)
        ],
    }

    def show() -> None:
        doubled = sum(map(len, groups))
        click.echo(f"{len(groups)} groups of near-duplicates, {doubled} of {len(index)} photos.")
        for i, group in enumerate(groups):
            shown((f"group {i + 1}",), [(name,) for name in group])

    answer(as_json, result, show)


@click.command()
@found_argument
@click.option("-n", "count", default=20, type=click.IntRange(1), help="Number of photos.")
@json_option
def outliers(found: str, count: int, as_json: bool) -> None:
    """Find the photos that are least like any others, the oddest first.

    \b
    Example:
      instdisc outliers found -n 10
    """
    with working():
        index = Found(found).index()
        odd = index.outliers(min(count, len(index)), k=max(1, min(5, len(index) - 1)))
    result = [
        {"name": index.names[i], "similarity": round(float(s), 6)}
        for i, s in zip(odd.indices, odd.similarities, strict=True)
    ]
    rows = [(f"{one['similarity']:.3f}", one["name"]) for one in result]
    answer(as_json, result, lambda: shown(("similarity", "photo"), rows))


@click.command()
@found_argument
@click.option("-k", default=10, type=click.IntRange(1), help="Number of clusters, at most.")
@click.option("--seed", default=0, help="Of the random starts.")
@json_option
def clusters(found: str, k: int, seed: int, as_json: bool) -> None:
    """Divide the photos into clusters of similar ones, the largest first.

    \b
    Example:
      instdisc clusters found -k 5
    """
    with working():
        index = Found(found).index()
        groups = index.clusters(min(k, len(index)), seed)
    result: list[dict[str, Any]] = []
    for label, center in enumerate(groups.centers):
        names = [index.names[i] for i in (groups.labels == label).nonzero()[0]]
        result.append({"center": index.names[center], "size": len(names), "names": names})
    rows = [(i, one["size"], one["center"]) for i, one in enumerate(result)]
    answer(as_json, result, lambda: shown(("cluster", "photos", "most typical"), rows))
