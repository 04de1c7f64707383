"""The digest at the end of a file."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instdisc_core.checkpoints import check_seal, seal

pytestmark = pytest.mark.framework_independent


@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(1, 255))
def test_every_changed_byte_and_every_cut_breaks_a_seal(tmp_path_factory, data, place, change):
    path = tmp_path_factory.mktemp("seal") / "file"
    path.write_bytes(data)
    digest = seal(path)
    assert check_seal(path) == digest
    sealed = path.read_bytes()
    place %= len(sealed)
    changed = bytearray(sealed)
    changed[place] ^= change
    for damaged in (bytes(changed), sealed[:place], sealed + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            check_seal(path)
