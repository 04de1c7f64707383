"""Damage to the bytes of a file, as disks, transfers and people do it."""

from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]


def _flip(data, rng):
    """One bit."""
    return _with(data, rng.randrange(len(data)), lambda byte: byte ^ 1 << rng.randrange(8))


def _change(data, rng):
    """One byte."""
    return _with(data, rng.randrange(len(data)), lambda byte: rng.randrange(256))


def _cut(data, rng):
    """The end is missing."""
    return data[: rng.randrange(len(data))]


def _zero(data, rng):
    """A block of zeros, as a file system leaves it where it did not write."""
    start, end = _block(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def _swap(data, rng):
    """Two blocks in each other's place."""
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _insert(data, rng):
    """Bytes that do not belong there."""
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.randint(1, 64)) + data[place:]


def _append(data, rng):
    """Bytes after the end."""
    return data + rng.randbytes(rng.randint(1, 64))


def _repeat(data, rng):
    """A block twice."""
    start, end = _block(data, rng)
    return data[:end] + data[start:end] + data[end:]


def _remove(data, rng):
    """A block is missing."""
    start, end = _block(data, rng)
    return data[:start] + data[end:]


MUTATIONS: dict[str, Mutation] = {
    "flipped bit": _flip,
    "changed byte": _change,
    "cut": _cut,
    "zeros": _zero,
    "swapped blocks": _swap,
    "inserted bytes": _insert,
    "appended bytes": _append,
    "repeated block": _repeat,
    "missing block": _remove,
}


def mutated(data: bytes, seed: str) -> tuple[str, bytes]:
    """The bytes with one damage, and which; another one for every seed."""
    rng = Random(seed)
    kind = rng.choice(list(MUTATIONS))
    while (damaged := MUTATIONS[kind](data, rng)) == data:
        pass
    return kind, damaged


def _with(data, place, change):
    return data[:place] + bytes([change(data[place])]) + data[place + 1 :]


def _block(data, rng):
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.randint(1, 512))
