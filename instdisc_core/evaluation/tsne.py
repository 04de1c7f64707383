"""The embedding as a picture."""

import numpy as np

from instdisc_core.data.manifest import printable
from instdisc_core.validation import require, require_count, require_finite

# Ten colors that stay apart in the common kinds of color blindness.
COLORS = ["#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC"]
COLORS += ["#8C564B", "#F2A6D9", "#7F7F7F", "#B8A900", "#56B4E9"]


def plot_tsne(embeddings, source, path, num_images=2000, seed=0, title=""):
    """Draw a map of the embeddings by t-SNE, as PNG: points by class, or the images themselves.

    Args:
        embeddings: unit rows ``(n, embedding_dim)``.
        source: the ImageSource of the images. With labels for up to ten classes points are drawn;
            otherwise thumbnails.
        path: of the PNG file.
        num_images: at most so many are drawn, chosen at random.
        seed: of the choice and of the map.
        title: above the map.

    Returns:
        The positions ``(m, 2)`` and the indices ``(m,)`` of what was drawn.

    Raises:
        ValueError: embeddings that are not those of the source or not finite, or fewer than 4
            images.

    Source:
        van der Maaten and Hinton, JMLR 2008; scikit-learn's implementation.

    Example: ``plot_tsne(model.predict(photos.ordered()), photos, "tsne.png")``
    """
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    require(
        len(embeddings) == len(source),
        f"{len(embeddings)} embeddings of {len(source)} images",
        "one for each image",
    )
    require(len(source) >= 4, f"{len(source)} images", "at least 4, for a map to mean something")
    require_finite("embeddings", np.asarray(embeddings))
    require_count("num_images", num_images)
    require(num_images >= 4, f"num_images={num_images}", "at least 4")
    count = min(num_images, len(source))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:count])
    perplexity = min(30.0, (count - 1) / 3)
    t_sne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    positions = t_sne.fit_transform(np.asarray(embeddings)[chosen])

    figure = Figure((8, 8), layout="constrained")
    axis = figure.subplots()
    axis.set(xticks=[], yticks=[], aspect="equal")
    axis.set_title(printable(title), parse_math=False)
    classes = np.unique([] if source.labels is None else source.labels)
    if 0 < len(classes) <= len(COLORS):
        for label, color in zip(classes, COLORS, strict=False):
            x, y = positions[source.labels[chosen] == label].T
            axis.scatter(x, y, s=8, color=color, label=str(label), linewidths=0)
        legend = figure.legend(loc="outside lower center", ncols=5, markerscale=2.5, frameon=False)
        # Set afterwards: of labels Matplotlib leaves out those that begin with an underscore.
        for label, text in zip(classes, legend.get_texts(), strict=True):
            names = source.class_names
            name = names[label] if names is not None and label < len(names) else label
            text.set(text=printable(str(name)), parse_math=False)
    else:
        _draw_thumbnails(axis, positions, source, chosen)
    figure.savefig(path, dpi=110)
    return positions, chosen


def _draw_thumbnails(axis, positions, source, chosen):
    """The images at their places, none on top of one that is there already."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    side = (high - low).max() / 30
    axis.set(xlim=(low[0] - side, high[0] + side), ylim=(low[1] - side, high[1] + side))
    taken = set()
    for (x, y), i in zip(positions, chosen, strict=True):
        cell = int(x // side), int(y // side)
        if cell not in taken:
            taken.add(cell)
            left, bottom = cell[0] * side, cell[1] * side
            axis.imshow(source.image(i), extent=(left, left + side, bottom, bottom + side))
