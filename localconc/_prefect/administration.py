"""The limits on the server, as operators declare, read or change them.

Functions that take a `Connection` run in the sending thread. `read_all` runs in the caller's thread, and `perform` asks
the sending thread for each page.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from localconc._prefect.server.errors import Refused
from localconc.errors import LimitExistsError, LimitNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from localconc._prefect.server.connection import Connection
    from localconc._prefect.shared import Limit

NOT_FOUND, TAKEN = 404, 409

Result = TypeVar("Result")

#: A definition as `export` writes it: name, limit, active, decay.
Definition = tuple[str, int, bool, float]


class Perform(Protocol):
    """Lets the sending thread ask one question, and returns the answer."""

    def __call__(self, question: Callable[[Connection], Result]) -> Result: ...


def find(connection: Connection, name_or_id: str | UUID) -> Limit:
    """Read a limit by name or id.

    Raises:
        LimitNotFoundError: there is none.
    """
    if not isinstance(name_or_id, str | UUID):
        raise TypeError(f"name_or_id must be a string or a UUID, not {name_or_id!r}")
    limit = connection.read(name_or_id)
    if limit is None:
        raise LimitNotFoundError(f"There is no limit {str(name_or_id)!r}.")
    return limit


def create(connection: Connection, name: str, limit: int, *, active: bool, active_slots: int, decay: float) -> Limit:
    """Create a limit.

    Raises:
        LimitExistsError: there is one of that name.
    """
    try:
        limit_id = connection.create(name, limit, active=active, active_slots=active_slots, decay=decay)
    except Refused as refusal:
        if refusal.status != TAKEN:
            raise
        there = find(connection, name)
        raise LimitExistsError(
            f"The limit {name!r} exists already, with limit={there.limit}: change it with update_limit, or use "
            "ensure_limit."
        ) from None
    return find(connection, limit_id)


def ensure(connection: Connection, definition: Definition) -> Limit:
    """Create a limit, or update the one of that name."""
    name, limit, active, decay = definition
    while True:
        there = connection.read(name)
        if there is not None and _is_like(there, definition):
            return there
        try:
            if there is None:
                return create(connection, name, limit, active=active, active_slots=0, decay=decay)
            changes = {"limit": limit, "active": active, "slot_decay_per_second": decay}
            connection.update(there.id, changes)
            return find(connection, there.id)
        except (LimitExistsError, LimitNotFoundError):
            continue  # another process created or deleted it since it was read
        except Refused as refusal:
            if refusal.status != NOT_FOUND:
                raise


def read_all(perform: Perform) -> list[Limit]:
    """Read all limits, sorted by name; page by page, so that other questions of this process come in between."""
    found: list[Limit] = []
    while page := perform(partial(_page, len(found))):
        found += page
    return sorted(found, key=lambda limit: limit.name)


def _page(offset: int, connection: Connection) -> list[Limit]:
    return connection.read_page(offset)


def ensure_all(
    present: Iterable[Limit], wanted: Sequence[Definition], ensure_one: Callable[[Definition], Limit]
) -> list[Limit]:
    """Create or update many limits, one by one: the server has no transaction for that.

    Args:
        present: all limits of the server; a caller that must not read them does not come this far.
        ensure_one: creates or updates a limit.

    Raises:
        StoreError: the server refused one; says how far it came.
    """
    there = {limit.name: limit for limit in present}
    done: list[Limit] = []
    for definition in wanted:
        limit = there.get(definition[0])
        try:
            done.append(limit if limit and _is_like(limit, definition) else ensure_one(definition))
        except StoreError as trouble:
            raise StoreError(
                f"{trouble} It set {len(done)} of {len(wanted)} limits and stopped at {definition[0]!r}; those after "
                "it are as they were."
            ) from trouble
    return done


def _is_like(limit: Limit, definition: Definition) -> bool:
    return (limit.limit, limit.active, limit.slot_decay_per_second) == definition[1:]


def update(connection: Connection, name_or_id: str | UUID, changes: dict[str, Any]) -> list[Limit]:
    """Change a limit; return it as it was, and as it is now.

    Raises:
        LimitNotFoundError: there is none.
        LimitExistsError: the new name is taken.
    """
    there = find(connection, name_or_id)
    try:
        connection.update(there.id, changes)
    except Refused as refusal:
        if refusal.status == NOT_FOUND:
            raise LimitNotFoundError(f"There is no limit {str(name_or_id)!r}.") from None
        if refusal.status == TAKEN and "name" in changes:
            raise LimitExistsError(
                f"The limit {there.name!r} can't be renamed: {changes['name']!r} exists already."
            ) from None
        raise
    return [there, find(connection, there.id)]


def delete(connection: Connection, name_or_id: str | UUID) -> Limit:
    """Delete a limit; return it as it was.

    Raises:
        LimitNotFoundError: there is none.
    """
    there = find(connection, name_or_id)
    try:
        connection.delete(there.id)
    except Refused as refusal:
        if refusal.status == NOT_FOUND:
            raise LimitNotFoundError(f"There is no limit {str(name_or_id)!r}.") from None
        raise
    return there


def read_those(connection: Connection, limit_ids: Iterable[UUID]) -> tuple[Limit, ...]:
    """Read the limits with these ids; deleted ones are left out."""
    found = [connection.read(limit_id) for limit_id in limit_ids]
    return tuple(limit for limit in found if limit is not None)
