"""A digest at the end of a file, which finds every changed byte."""

import hashlib
import os
from pathlib import Path

from instdisc_core.validation import require

MARK = b"instdisc"
DIGEST_BYTES = 32
CHUNK = 2**20


def seal(path: str | os.PathLike) -> str:
    """Append the digest of a file's bytes to it; HDF5 ignores what follows its data.

    Args:
        path: of the file.

    Returns:
        The digest, 64 hexadecimal digits.

    Example:
    ```python
    from instdisc_core.checkpoints import check_seal, seal

    dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    keras.saving.save_weights(dense, "dense.weights.h5")
    assert seal("dense.weights.h5") == check_seal("dense.weights.h5")
    ```
    """
    digest = file_digest(path)
    with open(path, "ab") as file:
        file.write(MARK + bytes.fromhex(digest))
    return digest


def check_seal(path: str | os.PathLike) -> str:
    """Raise unless a file ends with the digest of all bytes before it.

    Args:
        path: of the file.

    Returns:
        The digest, 64 hexadecimal digits.

    Raises:
        ValueError: the file has no digest, or its bytes have changed since they were written.

    Example:
    ```python
    from instdisc_core.checkpoints import check_seal

    model.build((None, 32, 32, 3))
    model.save_weights("model.weights.h5")
    digest = check_seal("model.weights.h5")
    ```
    """
    size = os.path.getsize(path) - len(MARK) - DIGEST_BYTES
    with open(path, "rb") as file:
        file.seek(max(size, 0))
        end = file.read()
    require(
        size >= 0 and end.startswith(MARK),
        f"{Path(path)}, which does not end with a digest",
        "a whole file that InstanceDiscrimination.save_weights wrote",
        "If it was cut short, take another copy. If another program wrote it, such as "
        "keras.saving.save_weights, and you trust it, instdisc_core.checkpoints.seal(path) adds "
        "the digest.",
    )
    digest = file_digest(path, size)
    require(
        end[len(MARK) :].hex() == digest,
        f"{Path(path)}, whose bytes are not those that were written",
        "an undamaged file",
        "Take another copy.",
    )
    return digest


def file_digest(path: str | os.PathLike, size: int | None = None) -> str:
    """The digest of the first ``size`` bytes of a file, 64 hexadecimal digits; None is all."""
    size = os.path.getsize(path) if size is None else size
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with open(path, "rb") as file:
        while size > 0:
            chunk = file.read(min(CHUNK, size))
            if not chunk:
                break
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()
