"""Whether an embedding is better than raw pixels and than an untrained encoder, without labels."""

import math
import os
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from instdisc_core.data import ImageSource
from instdisc_core.embedding_model import EmbeddingModel
from instdisc_core.evaluation.matching import Matching
from instdisc_core.evaluation.report import Report, text_table

PIXELS = "pixels"
UNTRAINED = "untrained encoder"
PRETRAINED = "pretrained encoder"
EMBEDDING = "embedding"
MARGIN = 0.02  # of 1,000 images: about the standard error of two scores, and a half
ADVICE = (
    "Train longer; or read smaller images, which the same time shows more often; or start from a "
    "pretrained encoder (weights=FILE in a recipe)."
)


class Verdict(NamedTuple):
    """How often changed copies find their images, by kind of features.

    Attributes:
        scores: for each kind of features (``"pixels"``, ``"untrained encoder"`` or ``"pretrained
            encoder"``, ``"embedding"``) the share of copies that find their image, by task, in
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
    def margin(self) -> float:
        """Scores that differ by no more are about as good: ``0.02 sqrt(1000 / images)``."""
        return MARGIN * math.sqrt(1000 / self.images)

    @property
    def better_features(self) -> list[str]:
        """The other kinds of features that are better than the embedding, best first."""
        return [name for name in self._others() if self._lead(name) > self.margin]

    @property
    def alike(self) -> list[str]:
        """The other kinds of features that are as good as the embedding, within the margin."""
        return [name for name in self._others() if abs(self._lead(name)) <= self.margin]

    @property
    def title(self) -> str:
        """The verdict in a few words."""
        if self.better_features:
            return f"The embedding is worse than {' and '.join(self.better_features)}"
        if self.alike:
            return f"The embedding is about as good as {' and '.join(self.alike)}"
        return f"The embedding is better than {' and '.join(self._others())}"

    @property
    def summary(self) -> str:
        """The verdict in words, and what to do where the embedding is not the best."""
        advice = ADVICE if self.better_features or self.alike else ""
        return f"{self.title}. {advice}".rstrip()

    def _others(self) -> list[str]:
        others = (name for name in self.scores if name != EMBEDDING)
        return sorted(others, key=self.score, reverse=True)

    def _lead(self, name: str) -> float:
        return self.score(name) - self.score(EMBEDDING)

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

    Example: ``print(verdict(model, photos).summary)``
    """
    tasks = Matching(source, images, seed)
    before = with_random_weights(model, source.size, seed) if untrained is None else untrained
    return judged(tasks, model, None if before is None else tasks.of_model(before))


def judged(
    tasks: Matching,
    model: EmbeddingModel,
    before: Mapping[str, float] | None,
    name: str = UNTRAINED,
) -> Verdict:
    """The Verdict of a model that was trained after ``before`` was measured.

    Args:
        tasks: the same as then.
        model: the trained model.
        before: what ``tasks.of_model`` said of it before training, or None.
        name: what it was then.

    Example:
    ```python
    tasks = Matching(photos)
    before = tasks.of_model(model)
    model.fit(photos.batches(10, seed=0), epochs=1)
    print(judged(tasks, model, before))
    ```
    """
    start = {} if before is None else {name: before}
    scores = {PIXELS: tasks.of_pixels(), **start, EMBEDDING: tasks.of_model(model)}
    return Verdict(scores, len(tasks.images))


def with_random_weights(
    model: EmbeddingModel, size: tuple[int, int], seed: int = 0
) -> EmbeddingModel | None:
    """A copy of a model's encoder and head with random weights; None where it cannot be rebuilt."""
    state = random.getstate()
    random.seed(seed)  # where Keras's initializers take their seeds from
    try:
        parts: dict[str, Any] = {
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
