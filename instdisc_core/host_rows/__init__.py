"""Rows in the host's memory or in a file, for banks that are larger than the device."""

from instdisc_core.host_rows.pieces import Pieces, load_pieces, save_pieces
from instdisc_core.host_rows.row_file import RowFile
from instdisc_core.host_rows.rows import HostRows, stored_form

__all__ = ["HostRows", "Pieces", "RowFile", "load_pieces", "save_pieces", "stored_form"]
