"""What must hold among the rows, beside what the ledger's triggers see to: finding what breaks it, and mending it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from localconc._engine.schema import CREATE_ALL, TOTAL

if TYPE_CHECKING:
    from localconc._engine.turn import Turn

_PARTS = "SELECT type, name FROM sqlite_schema WHERE type IN ('table', 'trigger')"

#: Gives empty pages back to the filesystem, and then the log.
COMPACT = "VACUUM"
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"


def integrity_errors(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file, in its words; nothing where it is sound."""
    return [row[0] for row in connection.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]


def missing_parts(connection: sqlite3.Connection) -> list[str]:
    """Tables and triggers that a database of this version has and this one lacks."""
    with closing(sqlite3.connect(":memory:")) as whole:
        for statement in CREATE_ALL:
            whole.execute(statement)
        missing = set(whole.execute(_PARTS)) - set(connection.execute(_PARTS))
    return [f"the {kind} {name!r} is missing" for kind, name in sorted(missing)]


def version(connection: sqlite3.Connection) -> int:
    """The version of the tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def unused_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file is empty pages."""
    pages = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    return pages * int(connection.execute("PRAGMA page_size").fetchone()[0])


def holders_without_owner(connection: sqlite3.Connection) -> list[tuple[int, int, int]]:
    """Limit, owner and serial of holders whose process the store does not know, so that nobody would notice its end."""
    return connection.execute(
        f"""
        SELECT limit_id, owner_id, serial FROM slots
        WHERE owner_id > {TOTAL} AND owner_id NOT IN (SELECT id FROM owners)
        """
    ).fetchall()


def places_without_waiter(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    """Limit and ticket of places in a queue that nobody stands in: they would block everybody behind them."""
    return connection.execute(
        "SELECT limit_id, ticket FROM queue WHERE ticket NOT IN (SELECT ticket FROM waiters)"
    ).fetchall()


def mend(turn: Turn, connection: sqlite3.Connection) -> None:
    """Make all of it hold again: the rows of the holders are the truth, and whoever fits now is admitted."""
    for limit_id, owner_id, serial in holders_without_owner(connection):
        turn.release(limit_id, owner_id, serial)
        turn.changed.append(limit_id)
    for limit_id, ticket in places_without_waiter(connection):
        connection.execute("DELETE FROM queue WHERE limit_id = ? AND ticket = ?", (limit_id, ticket))
        turn.changed.append(limit_id)
    for name, _, held in turn.ledger.sums_that_differ():
        row = turn.ledger.limit_named(name)
        assert row is not None
        connection.execute(
            f"UPDATE slots SET slots = ? WHERE limit_id = ? AND owner_id = {TOTAL} AND serial = 0", (held, row.id)
        )
        turn.changed.append(row.id)
