"""Changed copies of images that have to find their images: this needs no labels."""

from collections.abc import Callable

import numpy as np

from instdisc_core.data import ImageArray, ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.alterations import TASKS
from instdisc_core.evaluation.features import pixels
from instdisc_core.validation import require_count

VALUES = 2**26  # numbers in the pixels of all images of a task, at most


class Matching:
    """Copies of images that have to find these, made once for all kinds of features.

    Args:
        source: where the images are from.
        images: how many of them, spread evenly over the source; fewer where they are large.
        seed: of the alterations.

    Example:
    ```python
    from instdisc_core.evaluation import Matching

    tasks = Matching(photos)
    print(tasks.scores(lambda source: model.predict(source.ordered(), verbose=0)))
    ```
    """

    def __init__(self, source: ImageSource, images: int = 1000, seed: int = 0) -> None:
        require_count("images", images)
        most = max(2, VALUES // (3 * source.size[0] * source.size[1]))
        count = min(images, most, len(source))
        chosen = np.unique(np.linspace(0, len(source) - 1, count).astype(int))
        self.images = source.images(chosen)
        rng = np.random.default_rng(seed)
        self.copies = {
            task: np.stack([change(image, rng) for image in self.images])
            for task, change in TASKS.items()
        }

    def scores(self, embed: Callable[[ImageSource], np.ndarray]) -> dict[str, float]:
        """The share of copies that find their image, by task.

        Args:
            embed: from an ImageSource to unit rows ``(n, any)``.
        """
        rows = embed(ImageArray(self.images))
        return {
            task: share_found(embed(ImageArray(copies)), rows)
            for task, copies in self.copies.items()
        }

    def of_pixels(self) -> dict[str, float]:
        """The same of raw pixels, less their mean."""
        _, mean = pixels(ImageArray(self.images))
        return self.scores(lambda source: pixels(source, mean).rows)

    def of_model(self, model: EmbeddingModel) -> dict[str, float]:
        """The same of a model's embeddings; one that is not finite finds nothing."""
        return self.scores(lambda source: model.predict(source.ordered(), verbose=0))


def share_found(queries: np.ndarray, rows: np.ndarray) -> float:
    """The share of queries whose own row is more similar to them than every other row.

    Args:
        queries, rows: unit rows of the same shape; row ``i`` is the image of query ``i``.

    Example:
    ```python
    from instdisc_core.evaluation.matching import share_found

    share_found(embeddings, embeddings)  # 1.0, unless two rows are equal
    ```
    """
    similarities = queries @ rows.T
    own = np.diagonal(similarities)[:, None]
    return float(np.mean(np.sum(similarities >= own, axis=1) == 1))  # a tie is not found
