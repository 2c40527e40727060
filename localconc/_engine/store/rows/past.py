"""Queries of the past: acquisitions with their ends, refusals, recent grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.records import LimitRef
from localconc._engine.store.rows.statements import HELD

if TYPE_CHECKING:
    import sqlite3


_PAST: Final = f"""
    SELECT definition.uuid, definition.name, part."limit", part.owner_id, part.serial, part.slots, part.acquired_wall,
        part.released_wall, part.waited_seconds, coalesce(part.thread, ''), coalesce(part.label, ''), part.numbers,
        part.ending, part.is_held,
        coalesce(process.pid, 0), coalesce(process.command, '')
    FROM (
        SELECT limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, waited_seconds, thread, label,
            numbers, ending, 0 AS is_held
        FROM history
        UNION ALL
        SELECT limit_id, "limit", owner_id, serial, slots, acquired_wall, NULL, coalesce(waited_seconds, 0), thread,
            label, numbers, NULL, 1
        FROM slots WHERE {HELD}
    ) AS part
    JOIN (SELECT id, uuid, name FROM limits UNION ALL SELECT id, uuid, name FROM past_limits) AS definition
        ON definition.id = part.limit_id
    LEFT JOIN (
        SELECT id, pid, command FROM owners UNION ALL SELECT id, pid, command FROM past_owners
    ) AS process ON process.id = part.owner_id
"""


class PastAcquisition(NamedTuple):
    """The part of an acquisition that concerns one limit, as the history keeps it."""

    uuid: bytes
    name: str
    limit: int
    owner_id: int
    serial: int
    slots: int
    acquired_wall: float
    released_wall: float | None
    waited_seconds: float
    thread: str
    label: str
    numbers: str | None
    ending: int | None
    is_held: int
    pid: int
    command: str

    @property
    def call(self) -> tuple[int, int]:
        """Owner and serial, which all parts of one call share."""
        return self.owner_id, self.serial

    @property
    def ref(self) -> LimitRef:
        return LimitRef(0, self.uuid, self.name, self.limit, 0, 0.0)


def _holds(which: str) -> str:
    return f"""
    SELECT limit_id, waited_seconds, acquired_wall, released_wall, slots, 0 FROM history WHERE {which}
    UNION ALL
    SELECT limit_id, coalesce(waited_seconds, 0), acquired_wall, NULL, slots, 1 FROM slots WHERE {HELD} AND {which}
    """


_ALL_HOLDS: Final = _holds("TRUE")
_HOLDS_OF: Final = _holds("limit_id = :limit_id")


def acquisitions(connection: sqlite3.Connection, limit_id: int | None = None) -> list[PastAcquisition]:
    """Return all that the history knows of a limit (None for all limits), and what is held now."""
    rows = connection.execute(
        f"{_PAST} WHERE :limit_id IS NULL OR part.limit_id = :limit_id", {"limit_id": limit_id}
    ).fetchall()
    return [PastAcquisition._make(row) for row in rows]


def holds(
    connection: sqlite3.Connection, limit_id: int | None
) -> list[tuple[int, float, float, float | None, int, int]]:
    """Return limit, wait, begin, end, slots of each acquisition of a limit or of all, and whether it is held now."""
    statement = _ALL_HOLDS if limit_id is None else _HOLDS_OF
    return connection.execute(statement, {"limit_id": limit_id}).fetchall()


def complete_since(connection: sqlite3.Connection) -> float | None:
    """Return since when the history has all that ended; None if nothing was dropped yet."""
    row = connection.execute(
        "SELECT seq, coalesce(released_wall, acquired_wall) FROM history ORDER BY seq LIMIT 1"
    ).fetchone()
    return None if row is None or row[0] <= 1 else float(row[1])


def refusals(connection: sqlite3.Connection, since_wall: float) -> dict[int, int]:
    """Return how many requests on each limit were refused, or gave up, since a moment."""
    statement = "SELECT limit_id, count(*) FROM refusals WHERE refused_wall >= ? GROUP BY limit_id"
    return dict(connection.execute(statement, (since_wall,)).fetchall())


def recent_grants(connection: sqlite3.Connection, since_wall: float, max_rows: int) -> list[tuple[int, float]]:
    """Return limit and moment of the newest grants since a moment."""
    return connection.execute(
        f"""
        SELECT limit_id, acquired_wall
        FROM (SELECT limit_id, acquired_wall FROM history ORDER BY seq DESC LIMIT ?)
        WHERE acquired_wall >= ?
        UNION ALL
        SELECT limit_id, acquired_wall FROM slots WHERE {HELD} AND acquired_wall >= ?
        """,
        (max_rows, since_wall, since_wall),
    ).fetchall()
