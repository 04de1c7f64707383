"""TorchBankOps: in-place updates, flash attention over the bank, products of chosen rows."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeAlias, TypeVar

import keras
import torch
from torch import Tensor

from instdisc_core import BankOps, QuantizedRows
from instdisc_core.types import Attention, SearchResult
from instdisc_torch import few_queries, products, search, tiles
from instdisc_torch.fused import attention, sampled_product

Bank: TypeAlias = keras.Variable | Tensor | QuantizedRows
P = ParamSpec("P")
R = TypeVar("R")

# Elements of gathered or widened rows in memory at a time: 4 MiB of float32.
CHUNK_ELEMENTS = 2**20
# A bank of another dtype with at most so many elements is widened whole, not gathered: 32 MiB.
WIDENED_ELEMENTS = 2**23
# Queries of one pass of a search, and of one task of the attention kernel.
SEARCH_QUERIES = 1024
# A search with so few queries, or with so few scores, computes every score in float32 or from
# integers. With more it screens the rows first.
FEW_QUERIES = 16
FEW_SCORES = 6_000_000
# Rows of another dtype that a search with few queries converts at a time.
READ_ROWS = 8192
ATTENTION_QUERIES = 64
SMALLEST_PART = 1024


def _in_float32(method: Callable[P, R]) -> Callable[P, R]:
    """The method without ``torch.autocast``, which would multiply in half precision."""

    @wraps(method)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", enabled=False):
            return method(*args, **kwargs)

    return run


class TorchBankOps(BankOps):
    """The six primitives on PyTorch tensors; see ``instdisc_core.BankOps`` for what each means.

    Example: ``bank = MemoryBank(50_000, 128, backend="torch")``
    """

    keras_backend = "torch"
    search_rows = 8192

    @_in_float32
    def scores(self, features: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """See ``BankOps.scores``. On a CPU one sampled product, without a gather."""
        if indices.ndim == 1:
            return super().scores(features, bank, indices)
        if kernels := _kernels(features, tiles.has_gather(bank.shape[1])):
            return kernels.scores(features, *stored_parts(bank), indices)
        if isinstance(bank, QuantizedRows):
            scale = _tensor(bank.scale)[:, 0][indices]
            return self.scores(features, bank.values, indices) * scale
        table = _widened(_tensor(bank))
        images, rows = indices.shape
        on_cpu = table.device.type == "cpu" and sampled_product is not None
        if on_cpu and _is_float32(table) and rows <= len(table):
            starts = torch.arange(0, images * rows + 1, rows, dtype=indices.dtype)
            return sampled_product(features, table, starts, indices.flatten()).view(images, rows)
        scores = features.new_empty(indices.shape)
        for some in _chunks(indices, table.shape[1]):
            torch.bmm(
                _gather(table, indices[some]), features[some, :, None], out=scores[some, :, None]
            )
        return scores

    @_in_float32
    def combine(self, weights: Tensor, bank: Bank, indices: Tensor) -> Tensor:
        """See ``BankOps.combine``. In float32 a weighted embedding bag, without a gather."""
        if indices.ndim == 1:
            return super().combine(weights, bank, indices)
        if kernels := _kernels(weights, tiles.has_gather(bank.shape[1])):
            return kernels.combine(weights, *stored_parts(bank), indices)
        if isinstance(bank, QuantizedRows):
            scale = _tensor(bank.scale)[:, 0][indices]
            return self.combine(weights * scale, bank.values, indices)
        table = _widened(_tensor(bank))
        if table.dtype == torch.float32:
            return torch.nn.functional.embedding_bag(
                indices, table, per_sample_weights=weights, mode="sum"
            )
        combined = weights.new_empty(len(weights), table.shape[1])
        for some in _chunks(indices, table.shape[1]):
            torch.bmm(
                weights[some, None, :], _gather(table, indices[some]), out=combined[some, None, :]
            )
        return combined

    @_in_float32
    def attend(self, features: Tensor, bank: Bank, temperature: float) -> Attention:
        """See ``BankOps.attend``. On a CPU PyTorch's flash attention, one part per core.

        Over no rows log Z is minus infinity and the expected row 0.
        """
        n, width = bank.shape
        if 0 in (len(features), n):
            nothing = features.new_full((len(features),), -math.inf)
            return Attention(nothing, torch.zeros_like(features))
        stored, scale = stored_parts(bank)
        if kernels := _kernels(features, tiles.has_attention(width, stored.dtype)):
            return merged(*kernels.attend(features, stored, scale, temperature))
        if features.device.type != "cpu":
            return merged(*products.attend(features, partial(_block, bank), n, temperature))
        if attention is None:
            return super().attend(features, bank, temperature)
        size = n if _is_float32(bank) else max(1, CHUNK_ELEMENTS // width)
        parts = []
        for start in range(0, n, size):
            rows = _block(bank, start, start + size)
            heads = _heads(len(features), len(rows))
            even = len(rows) // heads * heads
            queries = features.expand(heads, -1, -1)
            parts.append(attention(queries, rows[:even].view(heads, -1, width), temperature))
            if even < len(rows):
                parts.append(attention(features[None], rows[None, even:], temperature))
        return merged(*(torch.cat(part) for part in zip(*parts, strict=True)))

    @torch.compiler.disable
    def on_host(
        self, function: Callable, results: Sequence[tuple[tuple, str]], *tensors: Tensor
    ) -> list[Tensor]:
        """See ``HostCalls.on_host``. Never compiled: torch.compile would replace NumPy."""
        return super().on_host(function, results, *tensors)

    def from_host(self, array: Any) -> Tensor:
        """See ``HostCalls.from_host``. On a CPU the array's own memory, also in bfloat16."""
        is_bfloat16 = keras.backend.standardize_dtype(array.dtype) == "bfloat16"
        tensor = torch.from_numpy(array.view("int16") if is_bfloat16 else array)
        return _tensor(tensor.view(torch.bfloat16) if is_bfloat16 else tensor)

    def write(self, variable: keras.Variable, indices: Tensor, values: Tensor) -> None:
        """See ``BankOps.write``. Writes in place."""
        value = variable.value
        if value is not variable._value:  # a stateless scope: the tensor is the caller's
            return super().write(variable, indices, values)
        with torch.no_grad():
            value.index_copy_(0, indices.long(), values)
        return None

    @_in_float32
    def top_k(self, features: Tensor, bank: Bank, k: int) -> SearchResult:
        """See ``BankOps.top_k``. On a CPU most rows are only screened, in low precision."""
        if not len(features) or features.device.type != "cpu" or sampled_product is None:
            return super().top_k(features, bank, k)
        n = bank.shape[0]
        read = partial(_block, bank)
        if len(features) <= max(FEW_QUERIES, FEW_SCORES // n):
            size = n if _is_float32(bank) else READ_ROWS
            quantized = (
                QuantizedRows(*map(_tensor, bank)) if isinstance(bank, QuantizedRows) else None
            )
            return SearchResult(*few_queries.top_k(features, read, n, k, size, quantized))
        results = [
            search.top_k(queries, read, n, k, self.search_rows)
            for queries in features.split(SEARCH_QUERIES)
        ]
        scores, indices = zip(*results, strict=True)
        return SearchResult(torch.cat(scores), torch.cat(indices))


def _block(bank: Bank, start: int, stop: int) -> Tensor:
    """Consecutive rows of the bank in float32; a view if they are stored in float32."""
    if isinstance(bank, QuantizedRows):
        return _tensor(bank.values)[start:stop] * _tensor(bank.scale)[start:stop]
    return _tensor(bank)[start:stop].float()


def merged(log_z_parts: Tensor, expected_rows: Tensor) -> Attention:
    """The softmax over all rows, from the softmaxes over parts of them.

    Args:
        log_z_parts, expected_rows: ``(parts, B)`` and ``(parts, B, d)``.
    """
    log_z = log_z_parts.logsumexp(dim=0)
    shares = torch.exp(log_z_parts - log_z)
    return Attention(log_z, torch.einsum("pb,pbd->bd", shares, expected_rows))


def _heads(images: int, rows: int) -> int:
    """Into how many parts attention must split the rows, so that every core has a task."""
    tasks = math.ceil(images / ATTENTION_QUERIES)
    return max(1, min(math.ceil(torch.get_num_threads() / tasks), rows // SMALLEST_PART))


def _widened(table: Tensor) -> Tensor:
    """The table in float32 if that is small, else as it is stored."""
    return table.float() if table.numel() <= WIDENED_ELEMENTS else table


def _chunks(indices: Tensor, embedding_dim: int) -> list[slice]:
    """Slices of images whose gathered rows stay small."""
    images, rows = indices.shape
    size = max(1, CHUNK_ELEMENTS // max(1, rows * embedding_dim))
    return [slice(start, start + size) for start in range(0, images, size)]


def _gather(table: Tensor, indices: Tensor) -> Tensor:
    return table.index_select(0, indices.flatten()).view(*indices.shape, -1).float()


def stored_parts(bank: Bank) -> tuple[Tensor, Tensor | None]:
    """The tensor of the rows, and that of their scales, or None without scales."""
    if isinstance(bank, QuantizedRows):
        return _tensor(bank.values), _tensor(bank.scale)
    return _tensor(bank), None


def _kernels(operand: Tensor, has_tiles: bool) -> ModuleType | None:
    """The Triton kernels if the operand is on a GPU that they run on, else None."""
    return _triton_kernels(operand.device) if operand.is_cuda and has_tiles else None


@cache
def _triton_kernels(device: torch.device) -> ModuleType | None:
    # Older GPUs have no TF32, and AMD's no sum of three products in it.
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        from instdisc_torch import kernels
    except ImportError:  # PyTorch for CPUs has no Triton, nor on some platforms
        return None
    return kernels


def _tensor(bank: keras.Variable | Tensor) -> Tensor:
    return keras.ops.convert_to_tensor(bank)


def _is_float32(bank: Bank) -> bool:
    return keras.backend.standardize_dtype(bank.dtype) == "float32"
