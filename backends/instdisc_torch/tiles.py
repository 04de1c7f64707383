"""How the Triton kernels are launched: the sizes of their tiles. Needs neither Triton nor a GPU.

Every size here is compiled in the tests for the GPUs of three generations, and held to keep nearly
all numbers in registers and to use no more shared memory than every GPU of its generation has.
Those for Hopper with at most 128 dimensions were chosen by measurement on an H100; the others have
not been timed.
"""

from typing import NamedTuple

import torch

LARGEST_DIM = 512
# A kernel that holds rows in three TF32 parts needs more registers than there are beyond this.
LARGEST_FLOAT32_DIM = 128
SMALLEST_DIM = 16  # of a product on tensor cores
GATHERED = 2**12  # elements of gathered rows that a program holds at a time
# Programs in a launch, so that every multiprocessor of a large GPU has work.
PROGRAMS = 512
SMALLEST_PART = 1024


class Tiles(NamedTuple):
    """What one program of a kernel holds at a time.

    Attributes:
        dim: elements of a row, filled up to a power of 2.
        images: in a program.
        rows: of the bank, at a time.
        num_warps, num_stages: see Triton.
    """

    dim: int
    images: int
    rows: int
    num_warps: int
    num_stages: int


def has_attention(dim: int, dtype: torch.dtype) -> bool:
    """Whether the attention kernel is the faster way for rows like these; else two products are."""
    return dim <= (LARGEST_FLOAT32_DIM if dtype == torch.float32 else LARGEST_DIM)


def has_gather(dim: int) -> bool:
    """Whether the kernels that read chosen rows take rows of this width."""
    return dim <= LARGEST_DIM


def of_attention(dim: int, dtype: torch.dtype, is_hopper: bool = False) -> Tiles:
    """The tiles of the attention kernel, for rows that it takes.

    Args:
        is_hopper: whether the GPU is of that generation, which has more shared memory than others.
    """
    padded, whole_vectors = _padded(dim), dim % 4 == 0  # of 16 bytes; others take more registers
    if padded > 128:
        return Tiles(padded, images=32, rows=32 if padded <= 256 else 16, num_warps=8, num_stages=2)
    if dtype != torch.float32:
        return Tiles(padded, images=64, rows=64 if is_hopper else 32, num_warps=4, num_stages=3)
    if is_hopper and whole_vectors:
        return Tiles(padded, images=128, rows=32, num_warps=8, num_stages=2)
    if is_hopper:
        return Tiles(padded, images=64, rows=16, num_warps=4, num_stages=2)
    images = 32 if whole_vectors or padded <= 64 else 16
    return Tiles(padded, images, rows=32, num_warps=8, num_stages=2)


def of_gather(dim: int) -> Tiles:
    """The tiles of the kernels that read chosen rows of one image, for rows that they take."""
    padded = _padded(dim)
    return Tiles(padded, images=1, rows=min(64, GATHERED // padded), num_warps=4, num_stages=3)


def parts_of_attention(images: int, rows: int, tiles: Tiles) -> tuple[int, int]:
    """Into how many parts the bank is cut, and how many rows a part has: whole tiles."""
    if not images or not rows:
        return 0, tiles.rows
    blocks = _divided(images, tiles.images)
    parts = max(1, min(_divided(PROGRAMS, blocks), rows // SMALLEST_PART))
    rows_per_part = _divided(_divided(rows, parts), tiles.rows) * tiles.rows
    return _divided(rows, rows_per_part), rows_per_part


def parts_of_sum(images: int, chosen: int, tiles: Tiles) -> tuple[int, int]:
    """Into how many parts the chosen rows of an image are cut, and how many a part has."""
    if not images or not chosen:
        return 0, tiles.rows
    parts = max(1, min(_divided(PROGRAMS, images), chosen // tiles.rows))
    chosen_per_part = _divided(chosen, parts)
    return _divided(chosen, chosen_per_part), chosen_per_part


def _padded(dim: int) -> int:
    return max(SMALLEST_DIM, 1 << (dim - 1).bit_length())


def _divided(whole: int, part: int) -> int:
    return -(-whole // part)
