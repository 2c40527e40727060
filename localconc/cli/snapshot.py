"""All limits with their holders and waiters at one moment, as the command line shows them.

A snapshot is read in one transaction, and without pendulum, which takes longer to import than most commands take to
run. If a Prefect server keeps the limits, a snapshot has what the server tells, and says what it does not tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from localconc._engine import registry
from localconc._engine.core import display
from localconc._engine.core.calls import Request
from localconc._engine.homes.home import is_on_server
from localconc._engine.operations import reading

if TYPE_CHECKING:
    from localconc._engine.store.rows.listings import HolderEntry, WaiterEntry
    from localconc.limits import Limit

#: The note on a snapshot of a server's limits.
UNTOLD = "A Prefect server keeps these limits. It does not tell who holds slots, who waits, or for how long."


class Entry(NamedTuple):
    """Slots that a thread or task holds, or waits for.

    Attributes:
        owner_id: the number of the process in the store.
        since: when the slots were acquired, or when the wait began, on the wall clock.
    """

    owner_id: int
    pid: int | None
    slots: int
    thread: str
    command: str
    label: str
    numbers: tuple[int, ...]
    since: float


class LimitStatus(NamedTuple):
    """A limit with the fields of the public `Limit`, and its holders and waiters in the order in which they came.

    Attributes:
        configured: False for a placeholder, which a call that named a missing limit has made.
        next_slot_seconds: in how many seconds one more slot has drained; None without decay, or if all are free.
        unowned_slots: occupied slots without a process, as `--active-slots` makes them; 0 with decay.
        grants_per_second: recent grants, if `take_snapshot` counted them.
        source: the engine's record of the limit, for `estimate_wait`; None for a server's limit.
    """

    id: UUID
    name: str
    limit: int
    active: bool
    active_slots: int
    denied_slots: int
    slot_decay_per_second: float
    avg_slot_occupancy_seconds: float
    created: float
    updated: float
    paused_until: float | None
    configured: bool
    next_slot_seconds: float | None
    unowned_slots: int
    holders: list[Entry]
    waiters: list[Entry]
    grants_per_second: float
    source: tuple[Any, float] | None


class Snapshot(NamedTuple):
    """All limits by name at one moment of the wall clock.

    Attributes:
        owner_id: the number of this process in the store.
        untold: says that the server tells neither holders nor waiters; "" if the snapshot has them.
    """

    wall: float
    owner_id: int
    limits: list[LimitStatus]
    untold: str = ""


# ---- reading ---------------------------------------------------------------------------------------------------------


def take_snapshot(*, grants: bool = False, reap: bool = True) -> Snapshot:
    """Read all limits with their holders and waiters.

    Args:
        grants: whether to count recent grants.
        reap: whether to release the slots of dead processes first.
    """
    if is_on_server():
        return Snapshot(time.time(), 0, [_server_status(limit) for limit in registry.keeper().read_all()], UNTOLD)
    engine = registry.current()
    if reap:
        reading.notice_deaths(engine)
    found = reading.snapshot(engine, grants=grants)
    return Snapshot(found.wall, engine.membership.owner_id, [_status(each, found) for each in found.limits])


def deadlocks_with(name: str) -> list[str]:
    """Return the circles of requests that wait forever, and for this limit, in words."""
    return [circle.text for circle in reading.deadlocks(registry.current()) if name in circle.names]


def _server_status(limit: Limit) -> LimitStatus:
    """Show a server's limit, without holders and waiters."""
    return LimitStatus(
        id=limit.id,
        name=limit.name,
        limit=limit.limit,
        active=limit.active,
        active_slots=limit.active_slots,
        denied_slots=limit.denied_slots,
        slot_decay_per_second=limit.slot_decay_per_second,
        avg_slot_occupancy_seconds=limit.avg_slot_occupancy_seconds,
        created=limit.created.timestamp(),
        updated=limit.updated.timestamp(),
        paused_until=None,
        configured=True,
        next_slot_seconds=None,
        unowned_slots=0,
        holders=[],
        waiters=[],
        grants_per_second=0.0,
        source=None,
    )


def _status(found: reading.LimitRows, snapshot: reading.StoreRows) -> LimitStatus:
    row, now = found.limit, snapshot.now
    owned = sum(entry.slots for entry in found.holders)
    return LimitStatus(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=display.active_slots(row, now),
        denied_slots=display.denied_slots(row, now),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=row.created,
        updated=row.updated,
        paused_until=display.paused_until(row, now, snapshot.wall),
        configured=bool(row.configured),
        next_slot_seconds=reading.next_slot_seconds(row, now),
        unowned_slots=0 if row.decay > 0 else max(row.held - owned, 0),
        holders=[_holder(entry) for entry in found.holders],
        waiters=[_waiter(entry) for entry in found.waiters],
        grants_per_second=found.grants,
        source=(found, now),
    )


def _holder(entry: HolderEntry) -> Entry:
    numbers = display.numbers(entry.numbers)
    return Entry(
        entry.owner_id,
        entry.pid or None,
        entry.slots,
        entry.thread,
        entry.command,
        entry.label,
        numbers,
        entry.acquired_wall,
    )


def _waiter(entry: WaiterEntry) -> Entry:
    label = Request.from_text(entry.request).label
    return Entry(
        entry.owner_id, entry.pid or None, entry.slots, entry.thread, entry.command, label, (), entry.waiting_since
    )


def pause_seconds(status: LimitStatus, wall: float) -> float:
    """Return how long a pause of the limit still lasts; 0 for none."""
    return 0.0 if status.paused_until is None else max(status.paused_until - wall, 0.0)


class Estimate(NamedTuple):
    """How long a request has to wait.

    Attributes:
        seconds: 0 if it would be admitted at once.
        is_exact: it follows from the decay, not from an average.
        is_exceeded: every holder has held its slots for longer than the average by which the wait was estimated.
    """

    seconds: float
    is_exact: bool
    is_exceeded: bool


def has_been_released(status: LimitStatus) -> bool:
    """Tell whether the average of a limit comes from releases, and is not its first value."""
    return status.source is not None and reading.has_been_released(status.source[0].limit)


def estimate_wait(status: LimitStatus, wall: float, slots: int = 1, before: int | None = None) -> Estimate | None:
    """Estimate how long a request has to wait.

    Args:
        wall: the moment of the snapshot.
        slots: how many slots it asks for.
        before: how many of the waiters are ahead of it; None for all.

    Returns:
        None if there is nothing to estimate from.
    """
    if status.source is None:
        return None
    found, now = status.source
    seconds = reading.expected_wait_seconds(found, now, slots, before)
    if seconds is None:
        return None
    if status.slot_decay_per_second > 0 or seconds <= pause_seconds(status, wall):
        return Estimate(seconds, is_exact=True, is_exceeded=False)
    average = status.avg_slot_occupancy_seconds
    exceeded = bool(status.holders) and all((wall - entry.since) / entry.slots > average for entry in status.holders)
    return Estimate(seconds, is_exact=False, is_exceeded=exceeded)
