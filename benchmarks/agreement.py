"""Whether two measures rank features alike."""

from itertools import combinations
from statistics import mean

APART = 0.02  # accuracies that differ by less are not ranked


def features_of(result):
    """Accuracy of kNN and mean of the tasks, of the pixels and of every stage of a training."""
    rows = {"pixels": result["pixels"]}
    rows |= {
        f"{row['epochs']} epochs": {"knn": row["knn"]["embedding"], "tasks": row["tasks"]}
        for row in result["stages"]
    }
    return {name: (row["knn"], mean(row["tasks"].values())) for name, row in rows.items()}


def agreement(values):
    """How many pairs of features both measures rank alike, and how many pairs there are.

    Args:
        values: for each kind of features its accuracy and the other measure.
    """
    pairs = [
        (first[1] > second[1]) == (first[0] > second[0])
        for first, second in combinations(values.values(), 2)
        if abs(first[0] - second[0]) >= APART
    ]
    return sum(pairs), len(pairs)
