"""Setting and reading limits on the server, as the sending thread does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from localconc._prefect.errors import Refused, Unreachable, refused, unreachable
from localconc.errors import LimitExistsError, LimitNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._prefect.connection import Connection
    from localconc._prefect.shared import Limit

NOT_FOUND, TAKEN = 404, 409

#: A definition as `export` writes it: name, limit, active, decay.
Definition = tuple[str, int, bool, float]


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
        if there is not None and (there.limit, there.active, there.slot_decay_per_second) == definition[1:]:
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


def ensure_all(connection: Connection, definitions: Iterable[Definition]) -> list[Limit]:
    """Create or update many limits. The server has no transaction for that.

    Raises:
        StoreError: the server refused one; says how far it came.
    """
    wanted = list(definitions)
    done: list[Limit] = []
    connection.read_all()  # whoever may not even read is told so before anything changes
    for definition in wanted:
        try:
            done.append(ensure(connection, definition))
        except (Refused, Unreachable, StoreError) as trouble:
            raise _came_so_far(connection, trouble, done, wanted) from trouble
    return done


def _came_so_far(connection: Connection, trouble: Exception, done: list[Limit], wanted: list[Definition]) -> StoreError:
    told = trouble
    if isinstance(trouble, Refused):
        told = refused(connection.url, trouble)
    elif isinstance(trouble, Unreachable):
        told = unreachable(connection.url, trouble)
    name = wanted[len(done)][0]
    return StoreError(
        f"{told} It set {len(done)} of {len(wanted)} limits and stopped at {name!r}; those after it are as they were."
    )


def update(connection: Connection, name_or_id: str | UUID, changes: dict[str, Any]) -> Limit:
    """Change a limit.

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
    return find(connection, there.id)


def delete(connection: Connection, name_or_id: str | UUID) -> None:
    """Delete a limit.

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


def read_those(connection: Connection, limit_ids: Iterable[UUID]) -> tuple[Limit, ...]:
    """Read the limits with these ids; deleted ones are left out."""
    found = [connection.read(limit_id) for limit_id in limit_ids]
    return tuple(limit for limit in found if limit is not None)
