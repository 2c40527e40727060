"""What stands in a request's way, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from localconc._engine import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.model import LimitRow
    from localconc._engine.turn import Turn

#: Holders that an error message names before it says «and more».
MOST_NAMED_HOLDERS = 5


def describe(turn: Turn, rows: Iterable[LimitRow], ticket: int | None) -> str:
    """What a request waited for: slots in use, who holds them since when, and how many requests are ahead."""
    return " ".join(_describe(turn, row, ticket) for row in rows)


def _describe(turn: Turn, row: LimitRow, ticket: int | None) -> str:
    current = turn.ledger.limit_with_id(row.id) or row
    if current.limit == 0:
        return f"{current.name!r} is paused (limit=0)."
    text = f"{current.name!r} has {active_slots(current, turn.now)} of {current.limit} slots in use"
    holders = turn.ledger.holding(row.id)
    if holders:
        named = [f"pid {pid} since {_clock_time(at)}" for _, _, pid, _, _, at in holders[:MOST_NAMED_HOLDERS]]
        more = ", and more" if len(holders) > MOST_NAMED_HOLDERS else ""
        text += f", held by {', '.join(named)}{more}"
    ahead = turn.ledger.requests_ahead(row.id, ticket)
    return f"{text}; {ahead} request(s) ahead."


def active_slots(row: LimitRow, now: float) -> int:
    """Occupied slots as people see them."""
    level = rules.occupied_slots(row.empty_at, now, row.decay) if row.decay > 0 else row.held
    return rules.displayed(level)


def _clock_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError, TypeError):
        return "a moment that can't be understood"
