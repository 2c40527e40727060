"""What people see of the store: limits, holders, waiters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from localconc._engine.core import rules
from localconc._engine.core.errors import malformed
from localconc.errors import StoreError

if TYPE_CHECKING:
    from pendulum import DateTime

    from localconc._engine.core.records import LimitRow


@dataclass(frozen=True, slots=True)
class Limit:
    """A named limit as it stood when it was read.

    Attributes:
        id: its identity, which stays when an operator renames the limit.
        name: the name that calls pass.
        limit: how many slots there are; with 0, every request waits.
        active: whether it is enforced.
        active_slots: slots occupied at the moment of reading, after decay; a part of a slot counts as one.
        denied_slots: slots refused recently; they drain at the limit's decay, else at one each average occupancy.
        slot_decay_per_second: how many occupied slots drain each second; 0 for none.
        avg_slot_occupancy_seconds: for how long holders held a slot recently, on average.
        created: when the limit was made (UTC).
        updated: when its definition last changed (UTC).
        paused_until: until when every request waits (UTC); None if the limit is not paused.
    """

    id: UUID
    name: str
    limit: int
    active: bool
    active_slots: int
    denied_slots: int
    slot_decay_per_second: float
    avg_slot_occupancy_seconds: float
    created: DateTime
    updated: DateTime
    paused_until: DateTime | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """A thread or task that holds slots of a limit.

    Attributes:
        name: name of the limit.
        slots: how many slots it acquired.
        pid: the process.
        thread: name of the thread or task.
        command: command line of the process.
        acquired_at: since when it holds them (UTC).
        numbers: which of the limit's slots these are; empty until the holder asks for them.
        label: the `label=` of the call; "" without one.
    """

    name: str
    slots: int
    pid: int
    thread: str
    command: str
    acquired_at: DateTime
    numbers: tuple[int, ...] = ()
    label: str = ""


@dataclass(frozen=True, slots=True)
class Waiter:
    """A thread or task that waits for slots.

    Attributes:
        names: names of the limits whose slots it asked for together.
        slots: how many slots of each limit.
        pid: the process.
        thread: name of the thread or task.
        command: command line of the process.
        position: its place in the order of service, from 1: on the limit that was read, else among all waiters.
        waiting_since: since when it waits (UTC).
        label: the `label=` of the call; "" without one.
    """

    names: tuple[str, ...]
    slots: int
    pid: int
    thread: str
    command: str
    position: int
    waiting_since: DateTime
    label: str = ""


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


def limit(row: LimitRow, now: float, wall: float) -> Limit:
    """Return a limit as people see it at a moment."""
    until = paused_until(row, now, wall)
    return Limit(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=active_slots(row, now),
        denied_slots=denied_slots(row, now),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=moment(row.created),
        updated=moment(row.updated),
        paused_until=None if until is None else moment(until),
    )


def numbers(text: str | None) -> tuple[int, ...]:
    """Return the slot numbers in a text such as `'0,1'`; `()` for None.

    Raises:
        StoreError: localconc did not write this text.
    """
    try:
        return tuple(map(int, text.split(","))) if text else ()
    except (ValueError, AttributeError) as error:
        raise malformed("Slot numbers", text) from error
