"""Bytes compressed into an array, which unpacks to at most 64 times its size."""

import zlib

import numpy as np

RATIO = 64  # text of a manifest compresses to about a third


def pack(data: bytes) -> np.ndarray:
    """Compress into a uint8 array ``(length,)`` that ``unpack`` accepts."""
    packed = zlib.compress(data)
    if len(data) > RATIO * len(packed):
        packed = zlib.compress(data, level=0)  # stored, not compressed
    return np.frombuffer(packed, "uint8")


def unpack(array: np.ndarray) -> bytes:
    """Undo ``pack``; at most ``RATIO`` times the size of the array is held in memory.

    Raises:
        ValueError: the array is not what ``pack`` returned; the message is the reason alone.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"dtype {array.dtype} and shape {array.shape}, not uint8 and (length,)")
    limit, stream = RATIO * array.nbytes, zlib.decompressobj()
    try:
        data = stream.decompress(array.tobytes(), limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) > limit:
        raise ValueError(f"it unpacks to more than {RATIO} times its {array.nbytes} bytes")
    if not stream.eof:
        raise ValueError("it was cut")
    if stream.unused_data:
        raise ValueError(f"{len(stream.unused_data)} bytes too many")
    return data
