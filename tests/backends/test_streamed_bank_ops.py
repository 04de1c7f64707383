"""Rows in the host's memory pass the suite, whatever the block."""

from keras import ops

from instdisc_core import get_bank_ops
from instdisc_core.host_rows import HostRows
from instdisc_core.sharded_rows import parts
from instdisc_core.streamed_bank_ops import StreamedBankOps
from instdisc_core.testing import BankOpsConformance


def on_host(bank):
    """The bank of the suite, copied to the host's memory."""
    return HostRows([ops.convert_to_numpy(part).copy() for part in parts(bank)])


class OnHost(StreamedBankOps):
    """Computes with a copy in the host's memory of each bank that it is given."""

    def rows(self, bank, indices):
        return super().rows(on_host(bank), indices)

    def scores(self, features, bank, indices):
        return super().scores(features, on_host(bank), indices)

    def combine(self, weights, bank, indices):
        return super().combine(weights, on_host(bank), indices)

    def attend(self, features, bank, temperature):
        return super().attend(features, on_host(bank), temperature)

    def top_k(self, features, bank, k):
        return super().top_k(features, on_host(bank), k)

    def update_rows(self, bank, indices, rows, moves):
        copy = on_host(bank)
        super().update_rows(copy, indices, rows, moves)
        self.device_ops.load(bank, super().dump(copy))

    def dump(self, bank):
        return super().dump(on_host(bank))

    def load(self, bank, arrays):
        copy = on_host(bank)
        super().load(copy, arrays)
        self.device_ops.load(bank, super().dump(copy))


class TestStreamed(BankOpsConformance):
    bank_ops = OnHost(get_bank_ops(), block_rows=7000)
