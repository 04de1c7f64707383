"""The cost model: traffic counted by hand, and predictions next to what was measured."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))

from benchmarks import scale
from benchmarks.cost_model import Gpu, Traffic, bank_bytes, step, traffic

pytestmark = pytest.mark.framework_independent

# 2 ranks with 32 images each, rows of 16 numbers, 128 negatives: features and indices of a rank,
# then what each objective adds.
OWN = 32 * 16 * 4 + 32 * 4
COUNTED = {
    ("exact", False): (OWN + 32 * 17 * 4, 0),
    ("nce", False): (OWN + 32 * 129 * 4 + 32 * 16 * 4, 0),
    ("shared_nce", False): (OWN + 32 * 192 * 4 + 32 * 16 * 4, 0),
    ("exact", True): (OWN, 2 * 64 * 16 * 4 + 64 * 4 + 64 * 17 * 4),
    ("nce", True): (OWN, 64 * 129 * 4 + 2 * 64 * 16 * 4),
    ("shared_nce", True): (OWN, 192 * 16 * 4 + 2 * 64 * 16 * 4),
}


@pytest.mark.parametrize(("objective", "sharded"), sorted(COUNTED))
def test_bytes_of_a_step(objective, sharded):
    found = traffic(objective, 64, 16, 128, ranks=2, sharded=sharded)
    assert (found.gathered, found.reduced) == COUNTED[objective, sharded]
    assert found.sent(2) == sum(COUNTED[objective, sharded])
    assert traffic(objective, 64, 16, 128, ranks=1, sharded=sharded).sent(1) == 0


def test_scores_are_sent_where_rows_are_more_numbers():
    """4 images and rows of 16 numbers: 4 scores of each row, not the row."""
    assert traffic("shared_nce", 4, 16, 128, 2, True).reduced == (132 * 4 + 2 * 4 * 16) * 4


def test_a_ring():
    assert Traffic(gathered=10, reduced=8, collectives=2).sent(4) == 3 * 10 + 1.5 * 8


def test_rows_go_where_they_fit():
    assert bank_bytes(1001, 128, "int8", ranks=2) == 501 * 132
    gpu = Gpu()
    layouts = {n: step(gpu, "exact", n, ranks).layout for n, ranks in ((10**6, 1), (10**9, 8))}
    assert layouts == {10**6: "whole", 10**9: "sharded"}
    assert step(gpu, "exact", 10**9, 1).layout == "host"


def test_predictions_are_near_what_was_measured():
    found = list(scale.checks())
    assert len(found) > 10
    far = {check.what: check.ratio for check in found if not 0.7 < check.ratio < 1.4}
    assert not far
