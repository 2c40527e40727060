"""Rows of owners: the processes that have joined the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine.core.records import OwnerRow
from localconc._engine.store.rows.listings import MAX_LOOKED_AT
from localconc._engine.store.rows.schema import MAX_TICKET
from localconc._engine.store.rows.statements import HELD, OWNER_COLUMNS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


def insert(connection: sqlite3.Connection, owner: OwnerRow) -> int:
    owner_id = connection.execute(
        "INSERT INTO owners (key, pid, pid_namespace, started, command) VALUES (?, ?, ?, ?, ?)", owner[1:6]
    ).lastrowid
    assert owner_id is not None
    return owner_id


def with_key(connection: sqlite3.Connection, key: str) -> int | None:
    row = connection.execute("SELECT id FROM owners WHERE key = ?", (key,)).fetchone()
    return None if row is None else int(row[0])


def with_id(connection: sqlite3.Connection, owner_id: int) -> OwnerRow | None:
    row = connection.execute(f"SELECT {OWNER_COLUMNS} FROM owners WHERE id = ?", (owner_id,)).fetchone()
    return None if row is None else OwnerRow._make(row)


def read_all(connection: sqlite3.Connection) -> list[OwnerRow]:
    return [
        OwnerRow._make(row) for row in connection.execute(f"SELECT {OWNER_COLUMNS} FROM owners ORDER BY id").fetchall()
    ]


def become_command(connection: sqlite3.Connection, owner_id: int, pid: int, started: str, command: str) -> None:
    """Let an owner's row describe the command that the owner started."""
    connection.execute(
        "UPDATE owners SET pid = ?, started = ?, command = ?, is_command = 1 WHERE id = ?",
        (pid, started, command, owner_id),
    )


def delete(connection: sqlite3.Connection, owner_id: int) -> None:
    connection.execute("DELETE FROM owners WHERE id = ?", (owner_id,))


def ahead(connection: sqlite3.Connection, limit_id: int, ticket: int) -> list[int]:
    """Return the processes whose requests are the nearest ones ahead of a ticket."""
    statement = f"""
        SELECT DISTINCT owner_id FROM (
            SELECT waiters.owner_id FROM queue JOIN waiters USING (ticket)
            WHERE queue.limit_id = ? AND queue.ticket < ? ORDER BY queue.ticket DESC LIMIT {MAX_LOOKED_AT}
        )
    """
    return [row[0] for row in connection.execute(statement, (limit_id, ticket)).fetchall()]


def count_ahead(connection: sqlite3.Connection, limit_ids: Iterable[int], ticket: int) -> int:
    """Return how many processes are ahead of a ticket on any of these limits, up to a bound."""
    return len({owner_id for each in limit_ids for owner_id in ahead(connection, each, ticket)})


def is_on(connection: sqlite3.Connection, owner_id: int, limit_ids: Iterable[int]) -> bool:
    """Return whether a process holds slots of any of these limits, or is queued on one."""
    statement = """
        SELECT 1 FROM slots WHERE limit_id = ? AND owner_id = ?
        UNION ALL SELECT 1 FROM queue JOIN waiters USING (ticket) WHERE queue.limit_id = ? AND waiters.owner_id = ?
    """
    return any(connection.execute(statement, (each, owner_id) * 2).fetchone() for each in limit_ids)


def in_front(
    connection: sqlite3.Connection, limit_ids: Iterable[int], ticket: int | None, except_owner: int
) -> list[OwnerRow]:
    """Return the processes that hold slots of these limits, or are queued on them ahead of a ticket."""
    ids: set[int] = set()
    for limit_id in limit_ids:
        found = connection.execute(
            f"""
            SELECT owner_id FROM slots WHERE limit_id = ? AND {HELD} UNION
            SELECT waiters.owner_id FROM queue JOIN waiters USING (ticket)
            WHERE queue.limit_id = ? AND queue.ticket < ?
            """,
            (limit_id, limit_id, MAX_TICKET if ticket is None else ticket),
        ).fetchall()
        ids.update(row[0] for row in found)
    ids.discard(except_owner)
    return with_ids(connection, ids)


def served_first(
    connection: sqlite3.Connection, limit_ids: Iterable[int], count: int, except_owner: int
) -> list[OwnerRow]:
    """Return a few of the processes that hold slots of these limits, and those at the head of their queues."""
    holders = f"SELECT DISTINCT owner_id FROM slots WHERE limit_id = ? AND {HELD} LIMIT ?"
    waiters = """
        SELECT waiters.owner_id FROM queue JOIN waiters USING (ticket)
        WHERE queue.limit_id = ? ORDER BY queue.ticket LIMIT ?
    """
    ids: set[int] = set()
    for limit_id in limit_ids:
        for statement in (holders, waiters):
            ids.update(row[0] for row in connection.execute(statement, (limit_id, count)).fetchall())
    ids.discard(except_owner)
    return with_ids(connection, ids)


def with_ids(connection: sqlite3.Connection, ids: Iterable[int]) -> list[OwnerRow]:
    """Return the rows of those of these processes that are still in the store."""
    rows = (with_id(connection, each) for each in sorted(ids))
    return [row for row in rows if row is not None]


def after(connection: sqlite3.Connection, owner_id: int, max_rows: int) -> list[OwnerRow]:
    """Return the processes that joined the store after another one."""
    statement = f"SELECT {OWNER_COLUMNS} FROM owners WHERE id > ? ORDER BY id LIMIT ?"
    return [OwnerRow._make(row) for row in connection.execute(statement, (owner_id, max_rows)).fetchall()]


def to_sweep(connection: sqlite3.Connection, count: int, seed: int) -> list[OwnerRow]:
    """Return some processes, others for each seed, so that callers with different seeds look at all of them in time."""
    bounds = connection.execute("SELECT min(id), max(id) FROM owners").fetchone()
    if bounds[0] is None:
        return []
    start = bounds[0] + seed % (bounds[1] - bounds[0] + 1)
    statement = f"SELECT {OWNER_COLUMNS} FROM owners WHERE id {{}} ? ORDER BY id LIMIT ?"
    rows = connection.execute(statement.format(">="), (start, count)).fetchall()
    rows += connection.execute(statement.format("<"), (start, count - len(rows))).fetchall()
    return [OwnerRow._make(row) for row in rows]


def let_anyone_release(connection: sqlite3.Connection, owner_id: int, serials: Iterable[int]) -> None:
    """Note of acquisitions of one process that they are no longer a certain thread's or task's to release."""
    connection.executemany(
        "UPDATE slots SET context = NULL WHERE owner_id = ? AND serial = ?", [(owner_id, serial) for serial in serials]
    )
