"""Names of files as errors and pages show them."""

import pytest

from instdisc_core.data.names import listed, printable

pytestmark = pytest.mark.framework_independent


@pytest.mark.parametrize(
    "name",
    ["caf\udce9", "\ud800", "a\nb", "\x1b[2J", "\x9b", *"\u2028\u2029\u202a\u202e\u2066\u2069"],
)
def test_any_name_prints_on_one_line(name):
    for text in (printable(name), listed([name])):
        text.encode("utf-8")
        assert text.isprintable()
    assert printable("é 写真 a.png") == "é 写真 a.png"
