"""Names of limits for the shell's completion: quick, silent, and never making a store where there is none."""

from __future__ import annotations

from localconc.errors import LocalconcError


def complete_name(incomplete: str) -> list[str]:
    """The limits whose names begin like this."""
    return [name for name in _names() if name.startswith(incomplete)]


def complete_names(incomplete: str) -> list[str]:
    """The same for the last of several names with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name.replace(',', chr(92) + ',')}" for name in _names() if name.startswith(last)]


def _names() -> list[str]:
    from localconc._engine.home import DATABASE_NAME
    from localconc.limits import home, read_limits

    try:
        return [limit.name for limit in read_limits()] if (home() / DATABASE_NAME).exists() else []
    except (LocalconcError, OSError):
        return []
