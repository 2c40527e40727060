"""Declare, read and change limits; see their holders and waiters.

    >>> from localconc import ensure_limit, read_limit, update_limit
    >>> ensure_limit("database", 10).limit
    10
    >>> update_limit("database", limit=20).limit
    20
    >>> read_limit("database").active_slots
    0

Changes take effect at once, in every process; waiting calls are reevaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localconc._engine import registry
from localconc._engine.core import arguments
from localconc._engine.core.history import Acquisition, Percentiles, Statistics
from localconc._engine.core.rules import MAX_PAUSE_SECONDS
from localconc._engine.core.views import Holder, Limit, Waiter
from localconc._engine.homes.home import home

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

__all__ = [
    "Acquisition",
    "Holder",
    "Limit",
    "Percentiles",
    "Statistics",
    "Waiter",
    "create_limit",
    "delete_limit",
    "ensure_limit",
    "home",
    "pause_limit",
    "read_history",
    "read_holders",
    "read_limit",
    "read_limits",
    "read_statistics",
    "read_waiters",
    "resume_limit",
    "update_limit",
]


def create_limit(
    name: str, limit: int, *, active: bool = True, active_slots: int = 0, slot_decay_per_second: float = 0.0
) -> Limit:
    """Create a limit.

    >>> create_limit("api", 10, slot_decay_per_second=2.0)  # a burst of 10, then two a second

    Args:
        name: any text without `/ % & > <`.
        limit: how many slots, 0 or more; 0 makes requests wait until it is raised.
        active: whether it is enforced.
        active_slots: slots, 0 or more, that are occupied from the start and that no process owns.
        slot_decay_per_second: how many occupied slots drain each second: 0 (none), or from 1e-9 to 1e9.

    Returns:
        The limit. A placeholder of that name (made by a call that named a missing limit) turns into it.

    Raises:
        LimitExistsError: a configured limit has the name.
        ValueError, TypeError: an argument is out of range; the message names it and the value.
        StoreError: the database can't be used.
    """
    return registry.keeper().create(
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active=arguments.flag("active", active),
        active_slots=arguments.whole("active_slots", active_slots, 0),
        decay=arguments.decay(slot_decay_per_second),
    )


def ensure_limit(name: str, limit: int, *, active: bool = True, slot_decay_per_second: float = 0.0) -> Limit:
    """Create a limit, or update it to this.

    >>> ensure_limit("database", 10)  # at the start of a script

    Args:
        name: any text without `/ % & > <`.
        limit: how many slots, 0 or more.
        active: whether it is enforced.
        slot_decay_per_second: how many occupied slots drain each second: 0 (none), or from 1e-9 to 1e9.

    Returns:
        The limit. Slots that are held stay held.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it and the value.
        StoreError: the database can't be used.
    """
    return registry.keeper().ensure(
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active=arguments.flag("active", active),
        decay=arguments.decay(slot_decay_per_second),
    )


def read_limit(name_or_id: str | UUID) -> Limit:
    """Read a limit, with decay applied at this moment.

    >>> read_limit("database").active_slots
    3

    Args:
        name_or_id: its name, its id, or the text of its id.

    Returns:
        The limit as it stands.

    Raises:
        LimitNotFoundError: there is none.
        StoreError: the database can't be used.
    """
    return registry.keeper().read(arguments.name_or_id(name_or_id))


def read_limits() -> list[Limit]:
    """Read all limits, placeholders included.

    >>> [limit.name for limit in read_limits()]
    ['api', 'database']

    Returns:
        The limits, sorted by name.

    Raises:
        StoreError: the database can't be used.
    """
    return registry.keeper().read_all()


def update_limit(
    name_or_id: str | UUID,
    *,
    name: str | None = None,
    limit: int | None = None,
    active: bool | None = None,
    active_slots: int | None = None,
    slot_decay_per_second: float | None = None,
) -> Limit:
    """Change a limit. Waiting calls are reevaluated against the new definition.

    >>> update_limit("database", limit=0)  # holders finish, and new requests wait
    >>> update_limit("database", limit=10)  # go on

    Args:
        name_or_id: its name, its id, or the text of its id.
        name: a new name.
        limit: how many slots, 0 or more. Holders keep their slots if you lower it.
        active: whether it is enforced.
        active_slots: discard all holders (later releases are ignored), and mark this many slots, 0 or more, as occupied
            by no process.
        slot_decay_per_second: how many occupied slots drain each second: 0 (none), or from 1e-9 to 1e9.

    Returns:
        The limit after the change.

    Raises:
        LimitNotFoundError: there is none.
        LimitExistsError: the new name is taken.
        ValueError, TypeError: nothing is to be changed, or an argument is out of range.
        StoreError: the database can't be used.
    """
    changes: dict[str, Any] = {
        "name": None if name is None else arguments.limit_name("name", name),
        "limit": None if limit is None else arguments.whole("limit", limit, 0),
        "active": None if active is None else arguments.flag("active", active),
        "active_slots": None if active_slots is None else arguments.whole("active_slots", active_slots, 0),
        "decay": None if slot_decay_per_second is None else arguments.decay(slot_decay_per_second),
    }
    if all(value is None for value in changes.values()):
        raise ValueError(
            f"update_limit({str(name_or_id)!r}) was given nothing to change: pass name, limit, active, active_slots or "
            "slot_decay_per_second"
        )
    return registry.keeper().update(arguments.name_or_id(name_or_id), **changes)


def delete_limit(name_or_id: str | UUID) -> None:
    """Delete a limit. Waiting calls are reevaluated without it.

    >>> delete_limit("database")

    Args:
        name_or_id: its name, its id, or the text of its id.

    Raises:
        LimitNotFoundError: there is none.
        StoreError: the database can't be used.
    """
    registry.keeper().delete(arguments.name_or_id(name_or_id))


def read_holders(name_or_id: str | UUID | None = None) -> list[Holder]:
    """Read the present holders. Slots that `rate_limit` acquired, or an operator set, have no holder.

    >>> [(holder.pid, holder.slots) for holder in read_holders("database")]
    [(4711, 1)]

    Args:
        name_or_id: of one limit; None for all.

    Returns:
        The holders, in the order in which they took their slots.

    Raises:
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    return registry.keeper().holders(arguments.name_or_id(name_or_id))


def read_waiters(name_or_id: str | UUID | None = None) -> list[Waiter]:
    """Read the waiters, in the order in which they will be served.

    >>> [(waiter.position, waiter.pid) for waiter in read_waiters("database")]
    [(1, 4712)]

    Args:
        name_or_id: of one limit; None for all.

    Returns:
        The waiters, the next one first.

    Raises:
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    return registry.keeper().waiters(arguments.name_or_id(name_or_id))


def pause_limit(name_or_id: str | UUID, seconds: float) -> Limit:
    """Pause a limit for some seconds: it admits no request, in any process.

    Holders keep their slots, waiters keep their places, and decay continues. The later end of two pauses counts. A
    pause survives restarts and, by the wall clock, a reboot.

    >>> pause_limit("api", 30)  # the API has answered 429 with Retry-After: 30

    Args:
        name_or_id: its name, its id, or the text of its id.
        seconds: for how long, above 0 and at most 30 days.

    Returns:
        The limit, with `paused_until`.

    Raises:
        LimitNotFoundError: there is none.
        ValueError, TypeError: `seconds` is out of range.
        StoreError: the database can't be used.
    """
    duration = arguments.seconds(f"a pause of {str(name_or_id)!r}: seconds", seconds, MAX_PAUSE_SECONDS)
    return registry.keeper().pause(arguments.name_or_id(name_or_id), duration)


def resume_limit(name_or_id: str | UUID) -> Limit:
    """End a pause of a limit at once, and admit the next waiters.

    >>> resume_limit("api")

    Args:
        name_or_id: its name, its id, or the text of its id.

    Returns:
        The limit.

    Raises:
        LimitNotFoundError: there is none.
        StoreError: the database can't be used.
    """
    return registry.keeper().resume(arguments.name_or_id(name_or_id))


def read_history(
    name_or_id: str | UUID | None = None, *, since: datetime | None = None, newest: int | None = None
) -> list[Acquisition]:
    """Read the acquisitions of this machine, oldest first; the history keeps the newest 10,000.

    >>> [(each.pid, each.waited_seconds) for each in read_history("database", newest=10)]
    [(4711, 0.0), (4712, 1.25)]

    Args:
        name_or_id: of one limit; None for all, deleted ones included.
        since: leave out acquisitions that had ended before this moment (a naive one counts as local time).
        newest: only this many of the latest, 0 or more.

    Returns:
        The acquisitions.

    Raises:
        LimitNotFoundError: there is no such limit.
        ValueError, TypeError: an argument is out of range.
        StoreError: the database can't be used.
    """
    if newest is not None:
        newest = arguments.whole("newest", newest, 0)
    return list(registry.keeper().history(arguments.name_or_id(name_or_id), arguments.since(since), newest))


def read_statistics(name_or_id: str | UUID, *, since: datetime | None = None) -> Statistics:
    """Read how a limit was used: how many calls, how long they waited and held, how many were refused.

    >>> read_statistics("database").utilization
    0.83

    Args:
        name_or_id: its name, its id, or the text of its id.
        since: where the window begins (a naive moment counts as local time); None for as far as the history goes. A
            full history may begin later than that: `Statistics.since` says when.

    Returns:
        The statistics. A hold that began before the window counts for the part inside it.

    Raises:
        LimitNotFoundError: there is no such limit.
        TypeError: `since` is no datetime.
        StoreError: the database can't be used.
    """
    [statistics] = registry.keeper().statistics(arguments.name_or_id(name_or_id), arguments.since(since))
    return statistics
