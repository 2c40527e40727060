"""Copying a store of an older version into a new one.

Version 1 is that of the first release. Its definitions, averages, history and holders are copied. Its waiters are not:
their processes find that the store is newer, and raise `StoreError`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from localconc._engine.core.arguments import nearest_decay
from localconc._engine.core.clock import monotonic
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.store.rows import integrity
from localconc._engine.store.rows.schema import INSTANT, OPERATOR, SCHEMA_VERSION, TOTALS_ROW, total_of

if TYPE_CHECKING:
    from pathlib import Path

#: The versions that can be copied.
FROM_VERSIONS: Final = frozenset({1})

#: How long another process may read or write before the takeover is put off.
_MAX_READ_SECONDS: Final = 0.01
_RETRY_SECONDS: Final = 0.001

_TABLES_OF_VERSION_1: Final = frozenset(
    {"meta", "limits", "slots", "waiters", "queue", "owners", "history", "past_limits"}
)

#: What is copied: the columns of the old table in the order of those of the new one.
_COPIES: Final = (
    ("meta (key, value)", "SELECT key, value FROM meta WHERE key <> 'store_identity'"),
    (
        'limits (id, uuid, name, "limit", active, configured, declared, slot_decay_per_second, revision, created, '
        "updated)",
        'SELECT id, uuid, name, "limit", active, configured, configured, slot_decay_per_second, revision, created, '
        "updated FROM limits",
    ),
    (
        "owners (id, key, pid, pid_namespace, started, command, is_command)",
        "SELECT id, key, pid, pid_namespace, started, command, is_command FROM owners",
    ),
    (
        'slots (limit_id, owner_id, serial, slots, acquired_wall, acquired_boot, thread, "limit", drained_at)',
        'SELECT limit_id, owner_id, serial, slots, acquired_at, since, thread, "limit", drained_at FROM slots '
        f"WHERE owner_id > {TOTALS_ROW} OR owner_id = {OPERATOR}",
    ),
    (
        'history (seq, limit_id, "limit", owner_id, serial, slots, acquired_wall, released_wall, waited_seconds, '
        "ending)",
        'SELECT seq, limit_id, "limit", owner_id, serial, slots, acquired_at, released_at, 0, '
        f"CASE WHEN released_at IS NULL THEN {INSTANT} END FROM history ORDER BY seq",
    ),
    ("past_limits (id, uuid, name)", "SELECT id, uuid, name FROM past_limits ORDER BY id"),
)

_TOTALS: Final = (
    f"SELECT drained_at, drained_at_wall, average, denied, denied_at, limit_id FROM slots WHERE owner_id = {TOTALS_ROW}"
)
_SET_TOTAL: Final = (
    f"UPDATE slots SET drained_at = ?, drained_at_wall = ?, average = ?, denied = ?, denied_at = ? WHERE {total_of()}"
)


def missing_parts(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that a store of version 1 has and this one lacks."""
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    names = {row[0] for row in rows}
    return [f"the table {name!r} is missing" for name in sorted(_TABLES_OF_VERSION_1 - names)]


def is_complete(path: Path) -> bool:
    """Return whether a new store was built to its end; all of it was written in one transaction."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.Connection(path, timeout=0)) as built:
            return integrity.version(built) == SCHEMA_VERSION and not integrity.integrity_errors(built)
    except sqlite3.Error:
        return False


def require_no_reader(old: sqlite3.Connection, version: int) -> None:
    """Make sure that no process reads the old store for long, which would keep `bring_in_log` from its work.

    Raises:
        Busy: a process does.
    """
    bring_in_log(old, _MAX_READ_SECONDS)
    old.execute(f"PRAGMA user_version = {version}").fetchall()  # a commit: who reads now is in the way of the next call
    bring_in_log(old, _MAX_READ_SECONDS)


def bring_in_log(old: sqlite3.Connection, timeout_seconds: float) -> None:
    """Bring the log of the old store into its file, so that the file says the same without it.

    After a table was dropped, this has to succeed under the same maintenance lock: as soon as processes of version 1
    can have the lock, they take such a store for a damaged one.

    Raises:
        Busy: for all of this time, other processes read of a former state, write, or bring in the log.
    """
    old.execute(f"PRAGMA busy_timeout = {timeout_seconds * 1000:.0f}").fetchall()
    deadline = monotonic() + timeout_seconds
    while old.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]:
        if monotonic() >= deadline:
            raise Busy
        sleep(_RETRY_SECONDS)  # SQLite does not wait for another process that brings in the log


def take_over(old: sqlite3.Connection, new: sqlite3.Connection, version: int) -> None:
    """Copy what a store of an older version holds into one of this version, whose tables are empty.

    Raises:
        Damaged: tables of the old store are missing.
    """
    assert version in FROM_VERSIONS
    missing = missing_parts(old)
    if missing:
        raise Damaged("; ".join(missing))
    for into, select in _COPIES:
        _copy(new, into, old.execute(select).fetchall())
    for limit_id, decay in new.execute("SELECT id, slot_decay_per_second FROM limits").fetchall():
        if nearest_decay(decay) != decay:  # version 1 accepted decays that its arithmetic rounded to nothing
            new.execute("UPDATE limits SET slot_decay_per_second = ? WHERE id = ?", (nearest_decay(decay), limit_id))
    new.executemany(_SET_TOTAL, old.execute(_TOTALS).fetchall())
    for table in ("limits", "owners"):  # a number is never given twice
        last = old.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        if last is not None:
            new.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last[0]))


def _copy(new: sqlite3.Connection, into: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        marks = ", ".join("?" for _ in rows[0])
        new.executemany(f"INSERT INTO {into} VALUES ({marks})", rows)
