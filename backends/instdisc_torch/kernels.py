"""Triton kernels for a bank on a GPU: attention over all rows, products and sums of chosen ones.

A bank is stored in float32, bfloat16 or float16, or in int8 with a scale for each row; ``scale`` is
None for all but int8. A row in fewer bits than float32 is multiplied as it is stored, on tensor
cores. The other factor is split into two numbers of that dtype, the second for the rounding error
of the first. Together they have sixteen bits in bfloat16 and twenty-two in float16. In float32 both
factors are split into two TF32 numbers of eleven bits, and the three larger products are summed.
Sums are float32.

Emulated in NumPy, with sums that are cut off and not rounded: the largest error of a score of unit
rows in 128 dimensions is 3e-6 in float32, 2e-6 in bfloat16 and int8, and 1e-6 in float16.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from instdisc_torch import tiles

# The interpreter, which runs kernels on a CPU for tests, has no products in bfloat16, and does not
# round to it but cuts off.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _product(left: tl.tensor, right: tl.tensor, SPLIT: tl.constexpr) -> tl.tensor:
    """``left @ right`` in float32; ``SPLIT`` is the dtype of the products, or None for float32."""
    if SPLIT is None:
        product = tl.dot(left, right, input_precision="tf32x3")
    else:
        high = left.to(SPLIT)
        low = (left - high.to(tl.float32)).to(SPLIT)
        right = right.to(SPLIT)
        product = tl.dot(low, right) + tl.dot(high, right)
    return product


# Triton compiles once for each divisibility by 16 of the numbers that are not named here.
@triton.jit(do_not_specialize=("num_images", "num_rows", "rows_per_part"))
def _attend(
    features: tl.tensor,
    bank: tl.tensor,
    scale: tl.tensor | None,
    log_z_parts: tl.tensor,
    expected_rows: tl.tensor,
    num_images: tl.tensor,
    num_rows: tl.tensor,
    rows_per_part: tl.tensor,
    inverse_temperature: tl.tensor,
    dim: tl.constexpr,
    DIM: tl.constexpr,
    IMAGES: tl.constexpr,
    ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
) -> None:
    """Online softmax of ``IMAGES`` images over one part of the bank."""
    image = tl.program_id(0) * IMAGES + tl.arange(0, IMAGES)
    part = tl.program_id(1)
    column = tl.arange(0, DIM)
    known = (image < num_images)[:, None] & (column < dim)[None, :]
    f = tl.load(features + image[:, None] * dim + column[None, :], mask=known, other=0.0)

    maximum = tl.full((IMAGES,), float("-inf"), tl.float32)
    total = tl.zeros((IMAGES,), tl.float32)
    weighted = tl.zeros((IMAGES, DIM), tl.float32)
    first = part * rows_per_part
    last = tl.minimum(first + rows_per_part, num_rows)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & (column < dim)[None, :]
        at = row.to(tl.int64)[:, None] * dim + column[None, :]
        v = tl.load(bank + at, mask=inside, other=0.0)
        s = _product(f, tl.trans(v), SPLIT) * inverse_temperature
        if scale is not None:
            size = tl.load(scale + row, mask=row < last, other=0.0)
            s *= size[None, :]
        s = tl.where((row < last)[None, :], s, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(s, axis=1))
        shrink = tl.exp(maximum - new_maximum)
        p = tl.exp(s - new_maximum[:, None])
        total = total * shrink + tl.sum(p, axis=1)
        if scale is not None:
            p *= size[None, :]
        # Scaled, so that float16 can represent small shares too.
        weighted = weighted * shrink[:, None] + _product(4096 * p, v, SPLIT) / 4096
        maximum = new_maximum

    at = part * num_images + image
    tl.store(log_z_parts + at, maximum + tl.log(total), mask=image < num_images)
    at = at[:, None] * dim + column[None, :]
    tl.store(expected_rows + at, weighted / total[:, None], mask=known)


@triton.jit(do_not_specialize=("num_chosen", "parts"))
def _scores(
    features: tl.tensor,
    bank: tl.tensor,
    scale: tl.tensor | None,
    indices: tl.tensor,
    scores: tl.tensor,
    num_chosen: tl.tensor,
    parts: tl.tensor,
    dim: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Products of one image with ``ROWS`` of its rows, one of ``parts``."""
    image = (tl.program_id(0) // parts).to(tl.int64)
    chosen = tl.program_id(0) % parts * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, DIM)
    at = image * num_chosen + chosen
    row = tl.load(indices + at, mask=chosen < num_chosen, other=0).to(tl.int64)
    f = tl.load(features + image * dim + column, mask=column < dim, other=0.0)
    v = tl.load(
        bank + row[:, None] * dim + column[None, :], mask=(column < dim)[None, :], other=0.0
    )
    s = tl.sum(v.to(tl.float32) * f[None, :], axis=1)
    if scale is not None:
        s *= tl.load(scale + row)
    tl.store(scores + at, s, mask=chosen < num_chosen)


@triton.jit(do_not_specialize=("num_chosen", "chosen_per_part"))
def _combine(
    weights: tl.tensor,
    bank: tl.tensor,
    scale: tl.tensor | None,
    indices: tl.tensor,
    sums: tl.tensor,
    num_chosen: tl.tensor,
    chosen_per_part: tl.tensor,
    dim: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """The weighted sum of one part of one image's rows."""
    image = tl.program_id(0)
    part = tl.program_id(1)
    column = tl.arange(0, DIM)
    total = tl.zeros((DIM,), tl.float32)
    first = part * chosen_per_part
    last = tl.minimum(first + chosen_per_part, num_chosen)
    for start in range(first, last, ROWS):
        chosen = start + tl.arange(0, ROWS)
        at = image.to(tl.int64) * num_chosen + chosen
        row = tl.load(indices + at, mask=chosen < last, other=0).to(tl.int64)
        w = tl.load(weights + at, mask=chosen < last, other=0.0)
        if scale is not None:
            w *= tl.load(scale + row)
        inside = (column < dim)[None, :]
        v = tl.load(bank + row[:, None] * dim + column[None, :], mask=inside, other=0.0)
        total += tl.sum(v.to(tl.float32) * w[:, None], axis=0)
    at = (image * tl.num_programs(1) + part) * dim + column
    tl.store(sums + at, total, mask=column < dim)


@torch.compiler.disable  # it would follow the launch, and cannot
def attend(
    features: Tensor, bank: Tensor, scale: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """The softmax over each of several parts of the bank; ``bank_ops.merged`` joins them.

    Returns:
        Log Z ``(parts, B)`` and expected rows ``(parts, B, d)``.
    """
    (images, dim), rows = features.shape, len(bank)
    tile = tiles.of_attention(dim, bank.dtype, _is_hopper(features))
    parts, rows_per_part = tiles.parts_of_attention(images, rows, tile)
    log_z_parts = features.new_empty(parts, images)
    expected_rows = features.new_empty(parts, images, dim)
    if parts:
        with torch.cuda.device_of(features):
            _attend[triton.cdiv(images, tile.images), parts](
                features.contiguous(),
                bank.contiguous(),
                scale,
                log_z_parts,
                expected_rows,
                images,
                rows,
                rows_per_part,
                1 / temperature,
                dim=dim,
                DIM=tile.dim,
                IMAGES=tile.images,
                ROWS=tile.rows,
                SPLIT=_split(bank.dtype),
                **_options(tile),
            )
    return log_z_parts, expected_rows


@torch.compiler.disable
def scores(features: Tensor, bank: Tensor, scale: Tensor | None, indices: Tensor) -> Tensor:
    """See ``BankOps.scores``, for indices ``(B, K)``."""
    (images, chosen), dim = indices.shape, bank.shape[1]
    tile = tiles.of_gather(dim)
    parts = triton.cdiv(chosen, tile.rows)
    scores = features.new_empty(images, chosen)
    if images and parts:
        with torch.cuda.device_of(features):
            _scores[(images * parts,)](
                features.contiguous(),
                bank.contiguous(),
                scale,
                indices.contiguous(),
                scores,
                chosen,
                parts,
                dim=dim,
                DIM=tile.dim,
                ROWS=tile.rows,
                **_options(tile),
            )
    return scores


@torch.compiler.disable
def combine(weights: Tensor, bank: Tensor, scale: Tensor | None, indices: Tensor) -> Tensor:
    """See ``BankOps.combine``, for indices ``(B, K)``."""
    (images, chosen), dim = indices.shape, bank.shape[1]
    tile = tiles.of_gather(dim)
    parts, chosen_per_part = tiles.parts_of_sum(images, chosen, tile)
    sums = weights.new_empty(images, parts, dim)
    if parts:
        with torch.cuda.device_of(weights):
            _combine[images, parts](
                weights.contiguous(),
                bank.contiguous(),
                scale,
                indices.contiguous(),
                sums,
                chosen,
                chosen_per_part,
                dim=dim,
                DIM=tile.dim,
                ROWS=tile.rows,
                **_options(tile),
            )
    return sums.sum(dim=1)


def _is_hopper(tensor: Tensor) -> bool:
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device)[0] == 9


def _options(tile: tiles.Tiles) -> dict[str, int | bool]:
    """What every launch says to Triton; releases differ in whether they fuse by default."""
    return {
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        "enable_fp_fusion": True,
    }


def _split(dtype: torch.dtype) -> tl.dtype | None:
    """The dtype in which rows of this dtype are multiplied; None is float32."""
    if dtype == torch.float32:
        return None
    return tl.float16 if dtype == torch.float16 or INTERPRETED else tl.bfloat16
