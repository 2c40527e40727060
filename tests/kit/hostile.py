"""Names that try to be more than names."""

from __future__ import annotations

import unicodedata

SCRIPT = "</script><script>window.attacked = 1</script><img src=x onerror='attacked=1'>"
QUOTES = "\"'`}} 1\n# TYPE attacked counter\nattacked 1\n"
CONTROL = "\x1b[31m\x1b]0;title\x07\r\n\t\x00\x7f\x9b2J"
BIDIRECTIONAL = "\u202eevil\u202c\u2066txt\u2069\u200f"
SURROGATE = "\udcff"

HOSTILE = SCRIPT + QUOTES + CONTROL + BIDIRECTIONAL + SURROGATE + "&amp;{braces}{0}%s$x"


def assert_harmless_on_a_terminal(text: str) -> None:
    """Nothing moves the cursor, changes colours or reverses the direction of writing."""
    active = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert not active, active
