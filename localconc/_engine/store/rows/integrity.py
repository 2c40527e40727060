"""Checks of a database: SQLite's own, those of its parts, those of its rows; with two corrections of rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final

from localconc._engine.store.rows.schema import CREATE_ALL, TOTALS_ROW, WAITING, total_of
from localconc._engine.store.rows.statements import LIMITS

_PARTS: Final = "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'trigger', 'view')"


def integrity_errors(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with the file, in its words; `[]` if it is sound."""
    return [row[0] for row in connection.execute("PRAGMA integrity_check(5)").fetchall() if row[0] != "ok"]


def missing_parts(connection: sqlite3.Connection) -> list[str]:
    """Return the tables, triggers and views that a database of this version has and this one lacks."""
    with closing(sqlite3.Connection(":memory:")) as whole:
        for statement in CREATE_ALL:
            whole.execute(statement)
        missing = set(whole.execute(_PARTS).fetchall()) - set(connection.execute(_PARTS).fetchall())
    return [f"the {kind} {name!r} is missing" for kind, name in sorted(missing)]


def version(connection: sqlite3.Connection) -> int:
    """Return the version of the tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def journal_mode(connection: sqlite3.Connection) -> str:
    """Return how changes get into the file: `wal`, by way of a log, is the only mode that localconc works with."""
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def unused_bytes(connection: sqlite3.Connection) -> int:
    """Return how much of the file is empty pages."""
    pages = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    return pages * int(connection.execute("PRAGMA page_size").fetchone()[0])


def holders_without_owner(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Return limit, owner and serial of holders without a row of their process, whose death no process would notice."""
    return connection.execute(
        f"""
        SELECT limit_id, owner_id, serial FROM slots
        WHERE owner_id > {TOTALS_ROW} AND owner_id NOT IN (SELECT id FROM owners)
        """
    ).fetchall()


def places_without_waiter(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Return limit and ticket of queue entries without a waiting request: they would block the requests behind them."""
    return connection.execute(
        f"""
        SELECT limit_id, ticket FROM queue
        WHERE ticket NOT IN (SELECT ticket FROM waiters WHERE state = {WAITING})
            OR limit_id NOT IN (SELECT id FROM limits)
        """
    ).fetchall()


def totals_that_differ(connection: sqlite3.Connection) -> list[tuple[int, str, int, int]]:
    """Return id, name, recorded total and real total of each limit whose total does not equal its holders' slots."""
    return connection.execute(
        f"""
        SELECT definition.id, definition.name, total.slots, coalesce(sum(slots.slots), 0) AS held
        FROM {LIMITS} LEFT JOIN slots
            ON slots.limit_id = definition.id AND slots.owner_id <> {TOTALS_ROW} AND slots.released_boot IS NULL
        GROUP BY definition.id HAVING total.slots <> held
        """
    ).fetchall()


def delete_place(connection: sqlite3.Connection, limit_id: int, ticket: int) -> None:
    """Delete a queue entry without a waiter."""
    connection.execute("DELETE FROM queue WHERE limit_id = ? AND ticket = ?", (limit_id, ticket))


def set_total(connection: sqlite3.Connection, limit_id: int, held: int) -> None:
    """Write the total of a limit's holders anew."""
    connection.execute(f"UPDATE slots SET slots = ? WHERE {total_of()}", (held, limit_id))
