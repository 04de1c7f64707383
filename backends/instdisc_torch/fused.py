"""PyTorch's fused CPU kernels that the bank uses, each after a check of what it computes.

The check runs once, at import, on a small problem. If this release of PyTorch has no such kernel or
another one, the name is None and the backend uses public operations.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _attention(queries: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Flash attention to ``rows``, which are keys and values: log Z and expected row.

    Args:
        queries: float32 ``(heads, B, d)``.
        rows: float32 ``(heads, R, d)``.

    Returns:
        ``(heads, B)`` and ``(heads, B, d)``.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    queries, rows = queries.contiguous(), rows.contiguous()  # it assumes that the last stride is 1
    output, log_z = kernel(queries[None], rows[None], rows[None], scale=1 / temperature)
    return log_z.view(queries.shape[:2]), output[0]


def _sampled_product(left: Tensor, right: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
    """Chosen elements of ``left @ right.T``, row by row; sparse libraries call it SDDMM.

    Args:
        left, right: float32 ``(L, d)`` and ``(R, d)``.
        starts: integers ``(L + 1,)``: the elements of row ``i`` are those from ``starts[i]`` to
            ``starts[i + 1] - 1``.
        columns: their columns, with the dtype of ``starts``; a column may repeat.

    Returns:
        Float32 tensor of the shape of ``columns``.

    Raises:
        ValueError: more elements than the whole product has; the kernel would write past the end
            of its memory.
    """
    if len(columns) > len(left) * len(right):
        raise ValueError(
            f"Received: {len(columns)} elements. Expected at most {len(left)} x {len(right)}. "
            "Ask for fewer at a time."
        )
    chosen = torch.sparse_csr_tensor(
        starts,
        columns,
        left.new_zeros(columns.shape),
        size=(len(left), len(right)),
        check_invariants=False,
    )
    torch.sparse.sampled_addmm(chosen, left, right.T, beta=0.0, out=chosen)
    return chosen.values()


def _checked(
    kernel: Callable[..., Any], arguments: tuple[Any, ...], expected: tuple[Tensor, ...]
) -> Any:
    """The kernel if it returns ``expected`` for these arguments, else None."""
    try:
        with warnings.catch_warnings(action="ignore"):  # one of them: "CSR support is in beta"
            results = kernel(*arguments)
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None
    results = results if isinstance(results, tuple) else (results,)
    agree = all(
        result.shape == value.shape and torch.allclose(result, value)
        for result, value in zip(results, expected, strict=True)
    )
    return kernel if agree else None


_eye = torch.eye(2)[None].repeat(2, 1, 1)
attention = _checked(
    _attention,
    (_eye, torch.zeros(2, 3, 2), 1.0),
    (torch.full((2, 2), math.log(3)), torch.zeros(2, 2, 2)),
)
sampled_product = _checked(
    _sampled_product,
    (
        _eye[0],
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        torch.tensor([0, 1, 3]),
        torch.tensor([1, 0, 1]),
    ),
    (torch.tensor([3.0, 2.0, 4.0]),),
)
