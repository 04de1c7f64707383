"""A JSON file that holds the digest of its own content."""

import hashlib
import json
from pathlib import Path
from typing import Any

from instdisc_core.validation import require


def write_record(path: Path, about: dict[str, Any]) -> None:
    """Write a dict as JSON, with the digest of its content."""
    path.write_text(json.dumps({**about, "digest": digest_of(_packed(about))}))


def read_record(path: Path) -> dict[str, Any]:
    """What ``write_record`` wrote, without the digest.

    Raises:
        ValueError: the file is not JSON, or its content has changed.
        OSError: it cannot be read.
    """
    text = path.read_bytes()
    try:
        about = dict(json.loads(text))
        digest = about.pop("digest")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path.name} is cut short or not JSON ({error})") from error
    found = digest_of(_packed(about))
    require(digest == found, f"{path.name}, which was changed", "its own digest")
    return about


def digest_of(data: bytes) -> str:
    """The digest of these bytes, 64 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _packed(about: dict[str, Any]) -> bytes:
    return json.dumps(about, sort_keys=True).encode()
