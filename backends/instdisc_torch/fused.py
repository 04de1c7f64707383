"""PyTorch's fused CPU kernels that the bank uses, each behind a check that it is what we expect.

The check runs once, at import, on a small problem. Where this release lacks a kernel or does
something else with it, the name is None and the backend takes its public way.
"""

import math
import warnings

import torch


def _attention(queries, rows, temperature):
    """Flash attention to ``rows``, which are keys and values: log partition and expected row.

    Args:
        queries: float32 ``(heads, B, d)``.
        rows: float32 ``(heads, R, d)``.

    Returns:
        ``(heads, B)`` and ``(heads, B, d)``.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    queries, rows = queries.contiguous(), rows.contiguous()  # it takes the last stride for 1
    output, log_z = kernel(queries[None], rows[None], rows[None], scale=1 / temperature)
    return log_z.view(queries.shape[:2]), output[0]


def _sampled_product(left, right, starts, columns):
    """Chosen elements of ``left @ right.T``, by rows: what sparse libraries call SDDMM.

    Args:
        left, right: float32 ``(L, d)`` and ``(R, d)``.
        starts: integers ``(L + 1,)``: the elements of row ``i`` are numbers ``starts[i]`` to
            ``starts[i + 1]``.
        columns: their columns, of the dtype of ``starts``; a column may repeat.

    Returns:
        Float32 tensor of the shape of ``columns``.

    Raises:
        ValueError: more elements than the whole product has; the kernel would write them beyond
            its memory.
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


def _checked(kernel, arguments, expected):
    """The kernel, if it gives what is expected of it here."""
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
