"""What people see of the store: limits, holders, waiters, events. Loaded by programs that look at some."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from localconc._engine.core import display

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


@dataclass(frozen=True, slots=True)
class Event:
    """An acquisition or release of slots of one limit, in the shape of Prefect's events.

    Attributes:
        event: `localconc.concurrency-limit.acquired` or `localconc.concurrency-limit.released`.
        occurred: when it happened (UTC).
        resource: `localconc.resource.id` (`localconc.concurrency-limit.<uuid>`), `localconc.resource.name`,
            `slots-acquired` and `limit`, all as strings. An event from the history also describes the caller.
        related: the other limits of the same call, each with `localconc.resource.id` and `localconc.resource.role`.
        id: identifies the event.
        follows: for a release, the id of the acquisition; else None.
    """

    event: str
    occurred: DateTime
    resource: dict[str, str]
    related: list[dict[str, str]] = field(default_factory=list)
    id: UUID = field(default=UUID(int=0))
    follows: UUID | None = None


def limit(row: LimitRow, now: float, wall: float) -> Limit:
    """Return a limit as people see it at a moment."""
    until = display.paused_until(row, now, wall)
    return Limit(
        id=UUID(bytes=row.uuid),
        name=row.name,
        limit=row.limit,
        active=bool(row.active),
        active_slots=display.active_slots(row, now),
        denied_slots=display.denied_slots(row, now),
        slot_decay_per_second=row.decay,
        avg_slot_occupancy_seconds=row.average,
        created=display.moment(row.created),
        updated=display.moment(row.updated),
        paused_until=None if until is None else display.moment(until),
    )
