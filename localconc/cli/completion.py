"""Names of limits for the shell's completion: quick, silent, and never making a store where there is none."""

from __future__ import annotations

import os
import re

from localconc.errors import LocalconcError

#: What bash would take for something else than a part of a word.
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")


def complete_name(incomplete: str) -> list[str]:
    """The limits whose names begin like this."""
    return _begun(_names(), incomplete)


def complete_names(incomplete: str) -> list[str]:
    """The same for the last of several names with commas between them."""
    before, comma, _ = incomplete.rpartition(",")
    return _begun([before + comma + name.replace(",", "\\,") for name in _names()], incomplete)


def _begun(words: list[str], incomplete: str) -> list[str]:
    """The words that begin like this, as they are typed: bash alone puts them on its line as they come."""
    begun = [word for word in words if word.startswith(incomplete)]
    if os.environ.get("_LOCALCONC_COMPLETE") == "complete_bash" and not _SPECIAL.search(incomplete):
        return [_SPECIAL.sub(r"\\\g<0>", word) for word in begun]
    return begun


def _names() -> list[str]:
    from localconc._engine.home import DATABASE_NAME, is_on_a_server
    from localconc.limits import home, read_limits

    try:
        is_there = is_on_a_server() or (home() / DATABASE_NAME).exists()
        return [limit.name for limit in read_limits()] if is_there else []
    except (LocalconcError, OSError):
        return []
