"""Declare, read and change limits; see who holds slots and who waits.

    >>> from localconc import ensure_limit, read_limit, update_limit
    >>> ensure_limit("database", 10).limit
    10
    >>> update_limit("database", limit=20).limit
    20
    >>> read_limit("database").active_slots
    0

Changes take effect at once, in every process, on those who wait as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localconc._engine import arguments, homes
from localconc._engine.home import home
from localconc._engine.views import Holder, Limit, Waiter

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "Holder",
    "Limit",
    "Waiter",
    "create_limit",
    "delete_limit",
    "ensure_limit",
    "home",
    "read_holders",
    "read_limit",
    "read_limits",
    "read_waiters",
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
        slot_decay_per_second: how many occupied slots drain each second, 0 (none) or more.

    Returns:
        The limit. A placeholder of that name (made by a call that named a missing limit) turns into it.

    Raises:
        LimitExistsError: a configured limit has the name.
        ValueError, TypeError: an argument is out of range; the message names it and the value.
        StoreError: the database can't be used.
    """
    created: Limit = homes.current().create(
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active=arguments.flag("active", active),
        active_slots=arguments.whole("active_slots", active_slots, 0),
        decay=arguments.decay(slot_decay_per_second),
    )
    return created


def ensure_limit(name: str, limit: int, *, active: bool = True, slot_decay_per_second: float = 0.0) -> Limit:
    """Make sure that a limit is there and is just like this: create it, or update it.

    >>> ensure_limit("database", 10)  # at the start of a script

    Args:
        name: any text without `/ % & > <`.
        limit: how many slots, 0 or more.
        active: whether it is enforced.
        slot_decay_per_second: how many occupied slots drain each second, 0 (none) or more.

    Returns:
        The limit. Slots that are held stay held.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names it and the value.
        StoreError: the database can't be used.
    """
    ensured: Limit = homes.current().ensure(
        arguments.limit_name("name", name),
        arguments.whole("limit", limit, 0),
        active=arguments.flag("active", active),
        decay=arguments.decay(slot_decay_per_second),
    )
    return ensured


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
    found: Limit = homes.current().read(name_or_id)
    return found


def read_limits() -> list[Limit]:
    """Read all limits, placeholders included.

    >>> [limit.name for limit in read_limits()]
    ['api', 'database']

    Returns:
        The limits, sorted by name.

    Raises:
        StoreError: the database can't be used.
    """
    found: list[Limit] = homes.current().read_all()
    return found


def update_limit(
    name_or_id: str | UUID,
    *,
    name: str | None = None,
    limit: int | None = None,
    active: bool | None = None,
    active_slots: int | None = None,
    slot_decay_per_second: float | None = None,
) -> Limit:
    """Change a limit; those who wait on it are answered as if they had just called.

    >>> update_limit("database", limit=0)  # drain it: holders finish, nobody new gets in
    >>> update_limit("database", limit=10)  # go on

    Args:
        name_or_id: its name, its id, or the text of its id.
        name: a new name.
        limit: how many slots, 0 or more. Lowering it takes nothing away from a holder.
        active: whether it is enforced.
        active_slots: 0 forgets every holder (their later release does nothing); N, 0 or more, forgets them too and
            occupies N slots that no process owns.
        slot_decay_per_second: how many occupied slots drain each second, 0 (none) or more.

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
    updated: Limit = homes.current().update(name_or_id, **changes)
    return updated


def delete_limit(name_or_id: str | UUID) -> None:
    """Delete a limit; those who wait on it are answered as if they had just called.

    >>> delete_limit("database")

    Args:
        name_or_id: its name, its id, or the text of its id.

    Raises:
        LimitNotFoundError: there is none.
        StoreError: the database can't be used.
    """
    homes.current().delete(name_or_id)


def read_holders(name_or_id: str | UUID | None = None) -> list[Holder]:
    """Read who holds slots now. Slots taken by `rate_limit`, or set by an operator, are held by nobody.

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
    found: list[Holder] = homes.current().holders(name_or_id)
    return found


def read_waiters(name_or_id: str | UUID | None = None) -> list[Waiter]:
    """Read who waits, in the order in which they will be served.

    >>> [(waiter.position, waiter.pid) for waiter in read_waiters("database")]
    [(1, 4712)]

    Args:
        name_or_id: of one limit; None for all.

    Returns:
        The waiters, first in line first.

    Raises:
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    found: list[Waiter] = homes.current().waiters(name_or_id)
    return found
