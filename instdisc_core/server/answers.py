"""What the page asks of an index. What takes long is computed once, in the background."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from instdisc_core.data import decode
from instdisc_core.data.decoding import num_pixels
from instdisc_core.data.labels import by_folder
from instdisc_core.data.names import printable
from instdisc_core.index import ImageIndex
from instdisc_core.index.contents import LEAST, typical_first
from instdisc_core.page.contents import class_texts, map_steps

MOST = 200  # neighbors of an image
MAX_BYTES, MAX_PIXELS = 2**25, 50_000_000  # of a picture that is sent
OUTLIERS, CLUSTERS, SHOWN = 1000, 20, 24
Answer = dict[str, Any]


class Computing(Exception):
    """The answer is being computed; ask again."""


class Answers:
    """Lists of images as the page's script reads them: total and items, of which a part is asked.

    Args:
        index: an ImageIndex.
        positions: computes where the map shows each image, ``(n, 2)``.
    """

    def __init__(self, index: ImageIndex, positions: Callable[[], np.ndarray]) -> None:
        self.index = index
        self.names = [printable(name) for name in index.names]
        self._lower = [name.lower() for name in self.names]
        numbers, classes = by_folder(index.names)
        self.labels = None if numbers is None else numbers.tolist()
        self.classes = class_texts(numbers, classes)
        self._positions = positions
        self._model, self._start = threading.Lock(), threading.Lock()
        self._results: dict[str, Any] = {}
        self._threads: dict[str, threading.Thread] = {}

    def photos(self, text: str, part: slice) -> Answer:
        """Images whose names hold every word of a text."""
        words, found = text.lower().split(), range(len(self.names))
        if not words:
            return self._list(found, part)
        return self._list([i for i in found if all(w in self._lower[i] for w in words)], part)

    def image(self, index: int, part: slice) -> Answer:
        """The neighbors of an image."""
        k = min(MOST, len(self.index) - 1)
        if k < 1:
            return {"total": 0, "items": [], "query": self._item(index)}
        with self._model:  # one search at a time, as each takes all cores
            (scores,), (found,) = self.index.neighbors(k, [index])
        return {**self._list(found, part, scores), "query": self._item(index)}

    def name(self, index: int) -> Answer:
        """What an image is called."""
        return {"name": self.names[index]}

    def outliers(self, part: slice) -> Answer:
        """Images least like any others, the oddest first."""
        n = len(self.index)
        odd = self._once("outliers", lambda: self.index.outliers(min(OUTLIERS, n), min(5, n - 1)))
        return self._list(odd.indices, part, odd.similarities)

    def duplicates(self) -> list[np.ndarray]:
        """Groups of images that are nearly the same."""
        return self._once("duplicates", lambda: self.index.near_duplicates().groups)

    def clusters(self) -> list[np.ndarray]:
        """Clusters of images, the most typical of each first."""
        return self._once("clusters", lambda: typical_first(self.index, CLUSTERS))

    def groups(self, kind: str, name: str, part: slice) -> Answer:
        """The first images of each of the ``duplicates`` or ``clusters``."""
        found: list[np.ndarray] = getattr(self, kind)()
        groups = [
            {
                "title": f"{name} {place + 1}",
                "path": f"{kind[:-1]}/{place}",
                "total": len(group),
                "items": [self._item(int(i)) for i in group[:SHOWN]],
            }
            for place, group in list(enumerate(found))[part]
        ]
        return {"total": len(found), "items": groups, "groups": True}

    def group(self, kind: str, place: int, part: slice) -> Answer:
        """All images of one group; IndexError if there is none."""
        return self._list(getattr(self, kind)()[place], part)

    def map(self) -> Answer:
        """Coordinates and labels of all images."""
        steps = self._once("map", lambda: map_steps(np.asarray(self._positions())))
        return {"points": steps, "labels": self.labels}

    def search(self, data: bytes) -> Answer:
        """The images most like the picture in the bytes of a file.

        Raises:
            ValueError: not an image, one with too many pixels, or an index without a model.
        """
        pixels_there = num_pixels(data)
        if pixels_there > MAX_PIXELS:
            raise ValueError(f"{pixels_there} pixels, more than {MAX_PIXELS}")
        if self.index.size is None:
            raise ValueError("the index does not know the size of its images")
        with self._model:
            pixels = decode(data, self.index.size)
            found = self.index.search(pixels[None], min(MOST, len(self.index)))
        return self._list(found.indices[0], slice(None), found.scores[0])

    @property
    def tabs(self) -> list[tuple[str, str, int | None]]:
        """Path, text and size of each tab."""
        n = len(self.index)
        tabs: list[tuple[str, str, int | None]] = [("photos", "Photos", n)]
        if n > 1:
            tabs += [("duplicates", "Near-duplicates", None), ("outliers", "Outliers", None)]
            tabs += [("clusters", "Clusters", None)]
        return tabs + ([("map", "Map", None)] if n >= LEAST else [])

    def _once(self, what: str, compute: Callable[[], Any]) -> Any:
        """A result that a thread computes; raises Computing until it is there."""

        def work() -> None:
            try:
                self._results[what] = compute()
            except Exception as error:  # shown at the next request, in the thread that asks
                self._results[what] = error

        with self._start:
            if what not in self._threads:
                self._threads[what] = threading.Thread(target=work, daemon=True)
                self._threads[what].start()
            thread = self._threads[what]
        thread.join(0.2)  # small folders are answered at once
        if what not in self._results:
            raise Computing(what)
        with self._start:
            result = self._results.get(what)
            if isinstance(result, Exception):  # the next request tries again
                del self._results[what], self._threads[what]
        if result is None:  # another request was told of the error
            raise Computing(what)
        if isinstance(result, Exception):
            raise result
        return result

    def _item(self, index: int) -> Answer:
        label = None if self.labels is None else self.labels[index]
        return {"id": index, "name": self.names[index], "label": label, "score": None}

    def _list(
        self, found: Sequence[int] | np.ndarray, part: slice, scores: np.ndarray | None = None
    ) -> Answer:
        items = [self._item(int(i)) for i in found[part]]
        for item, score in zip(items, () if scores is None else scores[part], strict=False):
            item["score"] = round(float(score), 3)
        return {"total": len(found), "items": items}
