"""Whether an embedding is better than raw pixels and than an untrained encoder, without labels."""

import os
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from instdisc_core.data import ImageArray, ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.alterations import PAIRS
from instdisc_core.evaluation.features import pixels
from instdisc_core.evaluation.report import Report, text_table
from instdisc_core.validation import require_count

PIXELS, UNTRAINED, PRETRAINED = "pixels", "untrained encoder", "pretrained encoder"
EMBEDDING = "embedding"
VALUES = 2**26  # numbers in the pixels of all images of a task, at most
ADVICE = (
    "Train longer; or read smaller images, which the same time shows more often; or start from a "
    "pretrained encoder (weights=FILE in a recipe)."
)

Embed = Callable[[ImageSource], np.ndarray]


class Verdict(NamedTuple):
    """How often images find their partners, by kind of features.

    Attributes:
        scores: for each kind of features (``"pixels"``, ``"untrained encoder"`` or ``"pretrained
            encoder"``, ``"embedding"``) the share of images that find their partner, by task, in
            ``[0, 1]``.
        images: how many images were compared.

    Example:
    ```python
    found = verdict(model, photos)
    print(found.table())
    print(found.summary)
    ```
    """

    scores: Mapping[str, Mapping[str, float]]
    images: int

    def score(self, features: str) -> float:
        """The mean over the tasks."""
        return float(np.mean([*self.scores[features].values()]))

    @property
    def better(self) -> list[str]:
        """The other kinds of features that do at least as well as the embedding, best first."""
        others = [name for name in self.scores if self.score(name) >= self.score(EMBEDDING)]
        return sorted((n for n in others if n != EMBEDDING), key=self.score, reverse=True)

    @property
    def summary(self) -> str:
        """The verdict in words, and what to do where the embedding is not the best."""
        others = [name for name in self.scores if name != EMBEDDING]
        if not self.better:
            return f"The embedding is better for these images than {' and than '.join(others)}."
        names = " and ".join(self.better)
        return f"The embedding is no better for these images than {names}. {ADVICE}"

    def table(self) -> str:
        """The scores as text: one row for each kind of features."""
        tasks = [*next(iter(self.scores.values()))]
        rows = [
            (name, *(f"{values[task]:.3f}" for task in tasks), f"{self.score(name):.3f}")
            for name, values in self.scores.items()
        ]
        return text_table((f"found among {self.images:,}", *tasks, "mean"), rows)

    def __str__(self) -> str:
        return f"{self.table()}\n{self.summary}"

    def report(self) -> Report:
        """A row for each task and kind of features, their means as ``"verdict"``, and a note."""
        report = Report(notes=[self.summary])
        for features, values in self.scores.items():
            for task, value in {**values, "verdict": self.score(features)}.items():
                report.add(task, features, value, images=self.images)
        return report

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the scores as bars, as PNG.

        Args:
            path: of the PNG file.
        """
        from matplotlib.figure import Figure

        figure = Figure((8, 3.2), layout="constrained")
        axes = figure.subplots()
        tasks = [*next(iter(self.scores.values())), "mean"]
        width = 0.8 / len(self.scores)
        for i, (name, values) in enumerate(self.scores.items()):
            heights = [*values.values(), self.score(name)]
            bars = axes.bar(np.arange(len(tasks)) + i * width, heights, width, label=name)
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
        axes.set_xticks(np.arange(len(tasks)) + width * (len(self.scores) - 1) / 2, tasks)
        axes.set(ylim=(0, 1.1), ylabel=f"found among {self.images:,}", title=self.title)
        axes.legend(fontsize=8)
        figure.savefig(path, dpi=110)

    @property
    def title(self) -> str:
        """The verdict in a few words."""
        if self.better:
            return f"No better than {' and '.join(self.better)}"
        return "The embedding finds most partners"


class Matching:
    """Tasks in which images have to find their partners, made once for all kinds of features.

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
        self.pairs = {
            task: tuple(
                np.stack(side) for side in zip(*(make(x, rng) for x in self.images), strict=True)
            )
            for task, make in PAIRS.items()
        }

    def scores(self, embed: Embed) -> dict[str, float]:
        """The share of images that find their partner, by task.

        Args:
            embed: from an ImageSource to unit rows ``(n, any)``.
        """
        return {
            task: share_found(*(embed(ImageArray(side)) for side in sides))
            for task, sides in self.pairs.items()
        }

    def of_pixels(self) -> dict[str, float]:
        """The same of raw pixels, less their mean."""
        _, mean = pixels(ImageArray(self.images))
        return self.scores(lambda source: pixels(source, mean).rows)

    def of_model(self, model: EmbeddingModel) -> dict[str, float]:
        """The same of a model's embeddings; one that is not finite finds nothing."""
        return self.scores(lambda source: model.predict(source.ordered(), verbose=0))

    def verdict(
        self,
        model: EmbeddingModel,
        before: Mapping[str, float] | None,
        name: str = UNTRAINED,
    ) -> Verdict:
        """The Verdict of a trained model.

        Args:
            model: the trained model.
            before: what ``of_model`` said of it before training, or None.
            name: what it was then.
        """
        scores = {PIXELS: self.of_pixels(), EMBEDDING: self.of_model(model)}
        if before is not None:
            scores = {PIXELS: scores[PIXELS], name: before, EMBEDDING: scores[EMBEDDING]}
        return Verdict(scores, len(self.images))


def share_found(queries: np.ndarray, rows: np.ndarray) -> float:
    """The share of queries whose own row is more similar to them than every other row.

    Args:
        queries, rows: unit rows of the same shape; row ``i`` is the partner of query ``i``.

    Example:
    ```python
    from instdisc_core.evaluation.verdict import share_found

    share_found(embeddings, embeddings)  # 1.0, unless two rows are equal
    ```
    """
    similarities = queries @ rows.T
    own = np.diagonal(similarities)[:, None]
    return float(np.mean(np.sum(similarities >= own, axis=1) == 1))  # a tie is not found


def verdict(
    model: EmbeddingModel,
    source: ImageSource,
    untrained: EmbeddingModel | None = None,
    images: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Say without labels whether an embedding is better than pixels and an untrained encoder.

    Args:
        model: a trained model.
        source: the images it is for.
        untrained: the model before training; None is a copy of it with random weights. Where the
            encoder cannot be rebuilt from its configuration, it is left out.
        images: how many images to compare, at most.
        seed: of the alterations, and of the random weights.

    Returns:
        A Verdict.

    Raises:
        ValueError: embeddings that are not finite.

    Example: ``print(verdict(model, photos).summary)``
    """
    tasks = Matching(source, images, seed)
    before = with_random_weights(model, source.size, seed) if untrained is None else untrained
    return tasks.verdict(model, None if before is None else tasks.of_model(before))


def with_random_weights(
    model: EmbeddingModel, size: tuple[int, int], seed: int = 0
) -> EmbeddingModel | None:
    """A copy of a model's encoder and head with random weights; None where it cannot be rebuilt."""
    state = random.getstate()
    random.seed(seed)  # where Keras's initializers take their seeds from
    try:
        parts = {
            name: None if part is None else type(part).from_config(part.get_config())
            for name in ("preprocessing", "encoder", "projector")
            for part in [getattr(model, name)]
        }
    except (NotImplementedError, TypeError, ValueError):  # a layer without a configuration
        return None
    finally:
        random.setstate(state)
    copy = EmbeddingModel(embedding_dim=model.embedding_dim, **parts)
    copy.build((None, *size, 3))
    return copy
