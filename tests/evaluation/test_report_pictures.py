"""The pictures of a report."""

import numpy as np
from problems import named, page_data

from instdisc_core.evaluation import Retrieval
from instdisc_core.evaluation.report_pictures import draw_pictures


def test_the_best_and_the_worst_queries_are_drawn(monkeypatch, tmp_path):
    """Ten images at each of two places; query 4 of nine is at the place of the other class."""
    drawn = {}

    def plot(found, path, title):
        drawn[path.name] = title, found.indices.tolist()

    monkeypatch.setattr(Retrieval, "plot", plot)
    train, test = named(20, np.repeat([0, 1], 10)), named(29, np.zeros(29, int))
    test = test.subset(range(20, 29))
    places = np.eye(2, dtype="float32")
    rows = places[(np.arange(9) == 4).astype(int)]
    written = draw_pictures(
        tmp_path, train, test, places[train.labels], rows, ["retrieval"], seed=0
    )
    assert [path.name for path in written] == [*drawn, "neighbors.html"]
    (best, first), (worst, last) = drawn.values()
    assert (best, worst) == ("Queries with the best neighbors", "Queries with the worst neighbors")
    assert sorted(first) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert last[0] == 4
    assert [len(neighbors) for _, neighbors, _ in page_data(written[-1])["rows"]] == [10] * 9
