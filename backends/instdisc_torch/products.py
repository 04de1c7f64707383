"""The softmax over a bank by products of matrices: where there is no attention kernel for it."""

from collections.abc import Callable

import torch
from torch import Tensor

# Elements of the scores, and of the softmax, that are in memory at a time: 128 MiB each.
BLOCK_ELEMENTS = 2**25


def attend(
    features: Tensor, read: Callable[[int, int], Tensor], num_rows: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """The softmax over each of several blocks of rows; ``bank_ops.merged`` joins them.

    Args:
        features: ``(B, d)``, at least one.
        read: from the first row and the one after the last to these rows in float32.
        num_rows: of the bank, at least one.
        temperature: by which scores are divided.

    Returns:
        Log Z ``(blocks, B)`` and expected rows ``(blocks, B, d)``.
    """
    size = max(1, BLOCK_ELEMENTS // len(features))
    scaled = features / temperature
    blocks = []
    for start in range(0, num_rows, size):
        rows = read(start, start + size)
        scores = scaled @ rows.T
        largest, where = scores.max(dim=1, keepdim=True)
        p = torch.softmax(scores, dim=1)
        # p is exp(s - log Z), and where s is largest at least 1 / n.
        log_z = largest - torch.log(p.gather(1, where))
        blocks.append((log_z[:, 0], p @ rows))
    log_z_parts, expected_rows = zip(*blocks, strict=True)
    return torch.stack(log_z_parts), torch.stack(expected_rows)
