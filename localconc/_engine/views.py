"""What people see: limits, holders, waiters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localconc._engine.model import not_understood

if TYPE_CHECKING:
    from uuid import UUID

    from pendulum import DateTime


@dataclass(frozen=True, slots=True)
class Limit:
    """A named limit as it stood when it was read.

    Attributes:
        id: its identity; stays when it is renamed.
        name: what calls name.
        limit: how many slots there are; 0 pauses it.
        active: whether it is enforced.
        active_slots: slots occupied at the moment of reading, decay applied, a part of a slot counted whole.
        denied_slots: slots refused of late; they drain at the limit's decay, else at one each average occupancy.
        slot_decay_per_second: how many occupied slots drain each second; 0 for none.
        avg_slot_occupancy_seconds: for how long a slot was held of late, on average.
        created: when it was made (UTC).
        updated: when its definition last changed (UTC).
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


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who holds slots of a limit.

    Attributes:
        name: of the limit.
        slots: how many were taken.
        pid: the process.
        thread: name of the thread or task.
        command: command line of the process.
        acquired_at: since when (UTC).
    """

    name: str
    slots: int
    pid: int
    thread: str
    command: str
    acquired_at: DateTime


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who waits for slots.

    Attributes:
        names: of the limits waited for, together.
        slots: how many of each.
        pid: the process.
        thread: name of the thread or task.
        command: command line of the process.
        position: place in the order of service, from 1 (of the limit asked about, else among all).
        waiting_since: since when (UTC).
    """

    names: tuple[str, ...]
    slots: int
    pid: int
    thread: str
    command: str
    position: int
    waiting_since: DateTime


def moment(seconds: float) -> DateTime:
    """A wall-clock moment as people get it."""
    import pendulum

    try:
        return pendulum.from_timestamp(seconds, tz="UTC")
    except (OverflowError, ValueError, OSError, TypeError) as error:
        raise not_understood("A moment", seconds) from error
