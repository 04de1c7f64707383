"""TorchBankOps: in-place updates, flash attention over the bank, gathers that fit the cache."""

import math

import keras
import torch

from instdisc_core import BankOps

# Elements of the gathered rows that are held at a time: 4 MiB of float32.
CHUNK_ELEMENTS = 2**20


class TorchBankOps(BankOps):
    """The five primitives on PyTorch tensors; see ``instdisc_core.BankOps`` for what each means.

    Example: ``bank = MemoryBank(50_000, 128, backend="torch")``
    """

    keras_backend = "torch"

    def scores(self, features, bank, indices):
        """See ``BankOps.scores``. Gathers the rows of a few images at a time."""
        if indices.ndim == 1:
            return super().scores(features, bank, indices)
        scores = features.new_empty(indices.shape)
        for some in _chunks(indices, features.shape[1]):
            torch.bmm(
                _gather(bank, indices[some]), features[some, :, None], out=scores[some, :, None]
            )
        return scores

    def combine(self, weights, bank, indices):
        """See ``BankOps.combine``. A weighted embedding bag, which gathers nothing."""
        if indices.ndim == 1:
            return super().combine(weights, bank, indices)
        table = keras.ops.convert_to_tensor(bank)
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

    def attend(self, features, bank, temperature):
        """See ``BankOps.attend``. One call of PyTorch's flash attention where it can be had."""
        table = keras.ops.convert_to_tensor(bank)
        if table.dtype == torch.float32 and table.device.type == "cpu" and _FLASH is not None:
            expected_row, log_partition = _FLASH(
                features[None, None], table[None, None], table[None, None], scale=1 / temperature
            )
            return log_partition.view(-1), expected_row[0, 0]
        return super().attend(features, table, temperature)

    def update_rows(self, bank, indices, rows):
        """See ``BankOps.update_rows``. Writes the rows in place."""
        value = bank.value
        if value is not bank._value:  # a stateless scope: the tensor is the caller's
            return super().update_rows(bank, indices, rows)
        with torch.no_grad():
            value.index_copy_(0, indices.long(), rows.to(value.dtype))


def _gather(bank, indices):
    table = keras.ops.convert_to_tensor(bank)
    return table.index_select(0, indices.flatten()).view(*indices.shape, -1).float()


def _chunks(indices, embedding_dim):
    """Slices of images whose gathered rows stay small."""
    images, rows = indices.shape
    size = max(1, CHUNK_ELEMENTS // max(1, rows * embedding_dim))
    return [slice(start, start + size) for start in range(0, images, size)]


def _flash_attention():
    """PyTorch's CPU flash attention, which is not public, if this release has it as expected."""
    try:
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        query, keys = torch.eye(2)[None, None], torch.zeros(1, 1, 3, 2)
        output, log_partition = attention(query, keys, keys, scale=1.0)
        as_expected = torch.equal(output, torch.zeros_like(query)) and torch.allclose(
            log_partition.view(-1), torch.full((2,), math.log(3))
        )
        return attention if as_expected else None
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None


_FLASH = _flash_attention()
