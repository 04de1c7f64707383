"""What an index holds, for other tools: tables, indexes to search, and the encoder."""

from instdisc_core.exports.encoder import EncoderExporter, export_encoder
from instdisc_core.exports.export import export
from instdisc_core.exports.formats import FORMATS, EncoderFormat, Format

__all__ = ["FORMATS", "EncoderExporter", "EncoderFormat", "Format", "export", "export_encoder"]
