"""Limits by name, with the nearest name where there is none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from localconc.cli.faults import CommandError
from localconc.errors import LimitNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc._engine.overview import Overview, Standing


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let a command that names a limit say which one may have been meant, where there is none of that name."""
    try:
        yield
    except LimitNotFoundError:
        raise CommandError(f"There is no limit {name!r}{suggestion(name)}") from None


def look(*, grants: bool = False) -> Overview:
    """Who holds and who waits, on all limits, now; those who have died are cleared up after first."""
    from localconc._engine import homes
    from localconc._engine.machine import Machine

    keeper = homes.current()
    if isinstance(keeper, Machine):
        return keeper.snapshot(grants=grants)
    from localconc.cli.server_view import overview_of

    return overview_of(keeper.snapshot())


def standing(everything: Overview, name: str) -> Standing:
    """One limit with everybody on it, by its name or its id.

    Raises:
        CommandError: there is none.
    """
    from uuid import UUID

    for found in everything.standings:
        if found.limit.name == name:
            return found
    for found in everything.standings:
        if str(UUID(bytes=found.limit.uuid)) == name.lower():
            return found
    raise CommandError(f"There is no limit {name!r}{suggestion(name, everything)}")


def suggestion(name: str, everything: Overview | None = None) -> str:
    """How a sentence on a missing limit ends."""
    from difflib import get_close_matches

    names = [found.limit.name for found in (everything or look()).standings if found.limit.configured]
    nearest = get_close_matches(name, names, 1, 0.5)
    if nearest:
        return f"; did you mean {nearest[0]!r}?"
    return ". See localconc ls for those there are." if names else ". Make one: localconc create NAME --limit N"
