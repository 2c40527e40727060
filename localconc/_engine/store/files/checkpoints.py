"""Bringing the log into the database, by one process at a time.

SQLite before 3.51.3 can lose what was committed (its «WAL-reset» fault): a checkpoint begins as another one has just
brought the whole log into the database, a writer begins the log anew at this very moment, and the later checkpoint
marks the new log as brought in. Here each checkpoint runs under a lock, and only while a part of the log is not in the
database. No writer can then begin the log anew before it ends. SQLite's automatic checkpoints are switched off, for
they know of no such lock. The last connection to close has the database for itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from localconc._engine.core.errors import Busy
from localconc._engine.homes.maintenance import maintenance_lock
from localconc._engine.store.rows.schema import CHECKPOINT_PAGES
from localconc.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.store.files.anchors import Anchors


def checkpoint_if_due(connection: sqlite3.Connection, anchors: Anchors | None, directory: Path) -> None:
    """Bring the log into the database if it is long, and a part of it is not there yet."""
    if anchors is None:
        return
    written, brought_in = anchors.index.frames()
    if written >= CHECKPOINT_PAGES and brought_in < written:
        checkpoint(connection, anchors, directory)


def checkpoint(connection: sqlite3.Connection, anchors: Anchors, directory: Path) -> None:
    """Bring the log into the database, as far as no reader needs it."""
    # Where it can't run, a later one brings in the same, and more.
    with suppress(Busy, StoreError, sqlite3.Error, OSError), maintenance_lock(directory):
        _checkpoint_locked(connection, anchors, "PASSIVE")


def compact(connection: sqlite3.Connection, anchors: Anchors, directory: Path) -> None:
    """Give unused space back to the file system.

    Raises:
        Busy: another process has the lock.
    """
    with maintenance_lock(directory):
        connection.execute("VACUUM")
        _checkpoint_locked(connection, anchors, "TRUNCATE")


def _checkpoint_locked(connection: sqlite3.Connection, anchors: Anchors, mode: str) -> None:
    written, brought_in = anchors.index.frames()
    if brought_in < written:
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
