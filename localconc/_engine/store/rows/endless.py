"""Queries for deadlocks: the requests that wait for as long as it takes, who holds what they wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.core.records import limits_in
from localconc._engine.store.rows.schema import WAITING
from localconc._engine.store.rows.statements import HELD

if TYPE_CHECKING:
    import sqlite3


class EndlessWaiter(NamedTuple):
    """A queued request that waits for as long as it takes."""

    ticket: int
    owner_id: int
    stops: str
    slots: int
    limit_id: int
    limit_ids: str | None
    request: str
    pid: int
    thread: str

    @property
    def queued_on(self) -> tuple[int, ...]:
        """The limits on which the request is queued."""
        return limits_in(self.limit_id, self.limit_ids)


def waiters(connection: sqlite3.Connection) -> list[EndlessWaiter]:
    """Return the queued requests that wait for as long as it takes, in the order of arrival."""
    rows = connection.execute(
        f"""
        SELECT waiters.ticket, waiters.owner_id, waiters.stops, waiters.slots, waiters.limit_id, waiters.limit_ids,
            waiters.request, coalesce(owners.pid, 0), waiters.thread
        FROM waiters LEFT JOIN owners ON owners.id = waiters.owner_id
        WHERE waiters.state = {WAITING} AND waiters.has_end = 0 ORDER BY waiters.ticket
        """
    ).fetchall()
    return [EndlessWaiter._make(row) for row in rows]


def stopped(connection: sqlite3.Connection) -> set[tuple[int, int]]:
    """Return owner and context of what holds something and can't go on while such requests wait."""
    rows = connection.execute(
        f"SELECT owner_id, stops FROM waiters WHERE state = {WAITING} AND has_end = 0 AND stops <> ''"
    ).fetchall()
    return {(owner_id, int(context)) for owner_id, stops in rows for context in stops.split(",")}


def holding(connection: sqlite3.Connection, limit_id: int) -> set[tuple[int, int]]:
    """Return owner and context of what holds slots of a limit that no other thread or task can release."""
    statement = f"SELECT DISTINCT owner_id, context FROM slots WHERE limit_id = ? AND {HELD} AND context <> 0"
    return set(connection.execute(statement, (limit_id,)).fetchall())


def queued_with(connection: sqlite3.Connection, limit_id: int) -> set[int]:
    """Return the limits of all requests that are queued on a limit and on others."""
    rows = connection.execute(
        "SELECT DISTINCT waiters.limit_ids FROM queue JOIN waiters USING (ticket) "
        "WHERE queue.limit_id = ? AND waiters.limit_ids IS NOT NULL",
        (limit_id,),
    ).fetchall()
    return {each for (limit_ids,) in rows for each in limits_in(limit_id, limit_ids)}
