"""Setting and reading limits on the server.

What takes a `Connection` runs in the sending thread; what takes `perform` has that thread asked, step by step.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

from localconc._prefect.errors import Refused
from localconc.errors import LimitExistsError, LimitNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from localconc._prefect.connection import Connection
    from localconc._prefect.shared import Limit

NOT_FOUND, TAKEN = 404, 409

Result = TypeVar("Result")

#: A definition as `export` writes it: name, limit, active, decay.
Definition = tuple[str, int, bool, float]


class Perform(Protocol):
    """Has one question asked in the sending thread, and returns its answer."""

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


def ensure_all(perform: Perform, definitions: Iterable[Definition]) -> list[Limit]:
    """Create or update many limits, one by one: the server has no transaction for that.

    Raises:
        StoreError: the server refused one; says how far it came.
    """
    wanted = list(definitions)
    there = {limit.name: limit for limit in read_all(perform)}  # without the right to read, nothing is changed
    done: list[Limit] = []
    for definition in wanted:
        limit = there.get(definition[0])
        try:
            done.append(limit if limit and _is_like(limit, definition) else perform(partial(_ensure, definition)))
        except StoreError as trouble:
            raise StoreError(
                f"{trouble} It set {len(done)} of {len(wanted)} limits and stopped at {definition[0]!r}; those after "
                "it are as they were."
            ) from trouble
    return done


def _ensure(definition: Definition, connection: Connection) -> Limit:
    return ensure(connection, definition)


def _is_like(limit: Limit, definition: Definition) -> bool:
    return (limit.limit, limit.active, limit.slot_decay_per_second) == definition[1:]


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
