"""Values of rows as people see them: moments, slots in use, slot numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from localconc._engine.core import rules
from localconc._engine.core.errors import malformed
from localconc.errors import StoreError

if TYPE_CHECKING:
    from pendulum import DateTime

    from localconc._engine.core.records import LimitRow


def moment(seconds: float) -> DateTime:
    """Return a moment of the wall clock as people get it.

    This takes an eighth of the time of `pendulum.from_timestamp`: a full history has 20,000 moments.
    """
    import pendulum

    if not hasattr(pendulum, "from_timestamp"):  # other threads wait for the import: this one has interrupted it
        raise StoreError(
            "A signal handler or finalizer used limits while it interrupted the import of pendulum: set a flag in the "
            "handler, and use limits outside it."
        )
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError, TypeError) as error:
        raise malformed("A moment", seconds) from error
    return pendulum.DateTime(at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, pendulum.UTC)


def moment_text(seconds: float) -> str:
    """Return a moment of the wall clock as messages show it. Unlike `moment`, this loads no library."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError, TypeError) as error:
        raise malformed("A moment", seconds) from error


def load() -> None:
    """Load the library of `moment` before a transaction that uses it, because other processes wait for its end."""
    moment(0.0)


def active_slots(row: LimitRow, now: float) -> int:
    """Return the occupied slots as people see them."""
    return rules.displayed(occupied(row, now))


def occupied(row: LimitRow, now: float) -> float:
    """Return the occupied slots, with the part of a slot that has not drained yet."""
    return rules.occupied_slots(row.empty_at, now, row.decay) if row.decay > 0 else float(row.held)


def denied_slots(row: LimitRow, now: float) -> int:
    """Return the refused slots that still count, as people see them."""
    return rules.displayed(rules.denied_slots(row.denied, row.denied_at, now, row.decay, row.average))


def paused_until(row: LimitRow, now: float, wall: float) -> float | None:
    """Return when a pause ends, by the wall clock; None if the limit is not paused."""
    return None if row.paused_until is None or row.paused_until <= now else wall + row.paused_until - now


def numbers(text: str | None) -> tuple[int, ...]:
    """Return the slot numbers in a text such as `'0,1'`; `()` for None.

    Raises:
        StoreError: localconc did not write this text.
    """
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except (ValueError, AttributeError) as error:
        raise malformed("Slot numbers", text) from error
