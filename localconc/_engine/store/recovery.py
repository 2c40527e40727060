"""How a process creates a store, restores a deleted one, sets a damaged one aside, or migrates an old one.

Each of these builds a whole file aside and moves it into its place. So no process ever opens half a file, and processes
that have the former file open notice that theirs is no longer the one at the path.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from localconc._engine.core.errors import Busy, Damaged, explained, remedy_for, shown
from localconc._engine.homes.files import create_file
from localconc._engine.homes.home import file_mode, give_to_group, is_group_shared
from localconc._engine.homes.maintenance import maintenance_lock
from localconc._engine.store import migration
from localconc._engine.store.cut_off import refuse_if_cut_off
from localconc._engine.store.files import lost_logs
from localconc._engine.store.files.anchors import OPEN_FILES_CAN_MOVE
from localconc._engine.store.rows import integrity, schema
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localconc._engine.store.files.anchors import Anchors
    from localconc._engine.store.files.lost_logs import OtherProcesses
    from localconc._engine.store.files.opened import OpenFiles

#: How many processes an error message lists.
MAX_LISTED_PIDS: Final = 8

#: What SQLite raises in Python, which can't read SQLite's message about a schema with bytes that are no text.
SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)

_SIDECARS: Final = ("-wal", "-shm")


class Recovery:
    """Creating, restoring, rebuilding and migrating the store at a path.

    Args:
        path: of the database.
        others: the other processes that use the home.
        files: what this process has open.
    """

    def __init__(self, path: Path, others: OtherProcesses, files: OpenFiles) -> None:
        self._path = path
        self._directory = path.parent
        self._others = others
        self._files = files

    # ---- connecting ------------------------------------------------------------------------------------------

    def connect_in_place(self) -> sqlite3.Connection:
        """Connect to the store at its path; create or migrate it first if necessary.

        Raises:
            Busy: another process does so at this moment.
            Damaged: it is not a sound store.
            StoreError: it can't be used.
        """
        if self._path.is_symlink():
            raise StoreError(
                f"The database {shown(self._path)} is a symbolic link, which localconc does not follow: remove it, "
                "or set LOCALCONC_HOME to the directory it points to."
            )
        if not os.path.lexists(self._path):
            with maintenance_lock(self._directory):
                if not os.path.lexists(self._path):
                    self._create()
        if lost_logs.may_be_lost(self._path) and self._others.lost_logs():
            with maintenance_lock(self._directory):
                lost_logs.bring_back(self._path, self._others)
        connection = self._connect(self._path)
        try:
            version = self._version(connection)
            if version < schema.SCHEMA_VERSION:
                connection.close()
                self._migrate()
                raise Busy  # there is a new file at the path now
            self._ensure_log(connection)
            if is_group_shared(self._directory):
                for suffix in _SIDECARS:
                    give_to_group(_sidecar(self._path, suffix))
        except BaseException as error:
            connection.close()
            if isinstance(error, (*SQLITE_ERRORS, FileNotFoundError)):
                raise self._explained(error) from error
            raise
        return connection

    def _connect(self, path: Path) -> sqlite3.Connection:
        refuse_if_cut_off(self._path)
        try:
            connection = self._files.connect(path)
        except SQLITE_ERRORS as error:
            raise self._explained(error) from error
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()  # see `checkpoints`
            connection.execute(f"PRAGMA journal_size_limit = {schema.LOG_BYTES}").fetchall()
            connection.execute("PRAGMA trusted_schema = OFF")
        except SQLITE_ERRORS as error:
            connection.close()
            raise self._explained(error) from error
        return connection

    def _ensure_log(self, connection: sqlite3.Connection) -> None:
        """Give a store a log if another program took it away: a tool can, and a copy by `VACUUM INTO` has none."""
        if integrity.journal_mode(connection) == "wal":
            return
        with maintenance_lock(self._directory):
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                where = f"The database {shown(self._path)}"
                raise StoreError(f"{where} can't have a log (WAL): set LOCALCONC_HOME to a local disk.")
            integrity.version(connection)  # SQLite creates the log at the first read

    def _version(self, connection: sqlite3.Connection) -> int:
        version = integrity.version(connection)
        if version > schema.SCHEMA_VERSION:
            raise StoreError(
                f"The database {shown(self._path)} has version {version}, newer than this localconc understands "
                f"({schema.SCHEMA_VERSION}): upgrade localconc, or set LOCALCONC_HOME to another directory."
            )
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            raise Damaged(f"{shown(self._path)} has no tables")
        if version < schema.SCHEMA_VERSION and version not in migration.FROM_VERSIONS:
            raise Damaged(f"{shown(self._path)} has version {version}, which was never one of localconc's")
        return version

    # ---- building aside --------------------------------------------------------------------------------------

    def _create(self) -> None:
        self._require_no_others(
            "was deleted while", "one of them restores it at its next call; otherwise end them and call again"
        )
        with self._building() as connection:
            _create_tables(connection)
            connection.execute("INSERT INTO meta VALUES ('boot_identity', ?)", (schema.NEVER_BOOTED,))
        self._move_into_place()

    @contextmanager
    def _building(self) -> Iterator[sqlite3.Connection]:
        """Build a store aside, in one transaction."""
        fresh = self._fresh_file()
        try:
            os.close(create_file(fresh, file_mode(self._directory)))
        except OSError as error:
            otherwise = "make the directory writable and leave some space, or set LOCALCONC_HOME to another directory"
            raise StoreError(
                f"The database {shown(self._path)} can't be created ({error.strerror}): {remedy_for(error, otherwise)}."
            ) from error
        connection = self._connect(fresh)
        try:
            connection.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except SQLITE_ERRORS as error:
            raise self._explained(error) from error
        finally:
            connection.close()

    @property
    def _aside(self) -> Path:
        return self._path.with_suffix(".new")

    def _fresh_file(self) -> Path:
        """Return the path to build at, without the leftovers of a process that died while it built there."""
        fresh = self._aside
        for suffix in ("", *_SIDECARS, "-journal"):
            _sidecar(fresh, suffix).unlink(missing_ok=True)
        return fresh

    def _move_into_place(self) -> None:
        for suffix in _SIDECARS:
            _sidecar(self._path, suffix).unlink(missing_ok=True)  # they belong to the former database
        os.replace(self._aside, self._path)

    def restore(self, connection: sqlite3.Connection, anchors: Anchors) -> None:
        """Write a deleted store, which an open connection still has, to its path again.

        Then drop a table of the deleted file: other processes that still have it open find that out, and open the new
        one.
        """
        with maintenance_lock(self._directory):
            if not anchors.are_unlinked():
                return  # another process has restored it
            try:
                state = _data_version(connection)
                fresh = self._fresh_file()
                os.close(create_file(fresh, file_mode(self._directory)))
                _copy(connection, fresh)
                connection.execute("BEGIN IMMEDIATE")
                if _data_version(connection) != state:
                    raise Busy  # another process that still has it open has written to it meanwhile
                connection.execute("DROP TABLE slots")
                self._move_into_place()
                connection.execute("COMMIT")
            except (*SQLITE_ERRORS, OSError) as error:
                raise self._explained(error) from error
            finally:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

    def _migrate(self) -> None:
        """Copy a store of an older version into a new file, with all that its processes hold.

        Then processes of the older version find their tables gone, look at the path, and say that the store is newer.
        This drops a table of the old file before it moves the new file into its place, so that no two processes admit
        by two files. A process that dies in between leaves a whole new store, which the next one moves into its place.
        """
        with maintenance_lock(self._directory):
            old = self._connect(self._path)
            try:
                version = self._version(old)
                if version >= schema.SCHEMA_VERSION:
                    return  # another process has migrated it
                errors = integrity.integrity_errors(old)
                if errors:
                    raise Damaged("; ".join(errors))
                if not (migration.missing_parts(old) and migration.is_complete(self._aside)):
                    if not OPEN_FILES_CAN_MOVE:
                        self._require_no_others(
                            "is of an older version, and", "end them; the next call then takes it over by itself"
                        )
                    migration.require_no_reader(old, version)
                    old.execute("BEGIN IMMEDIATE")
                    with self._building() as connection:
                        _create_tables(connection)
                        migration.take_over(old, connection, version)
                    old.execute("DROP TABLE slots")
                    old.execute("COMMIT")
                migration.bring_in_log(old, 1.0)  # without its log, the file would have its tables again
                if not OPEN_FILES_CAN_MOVE:
                    old.close()  # the new file could not take its place
                self._move_into_place()
            except (*SQLITE_ERRORS, OSError) as error:
                raise self._explained(error) from error
            finally:
                with suppress(sqlite3.Error):  # it may be closed already
                    if old.in_transaction:
                        old.execute("ROLLBACK")
                old.close()

    def _require_no_others(self, state: str, remedy: str) -> None:
        """Refuse to go on beside other living processes, whose slots the new file would not know."""
        others = self._others.living_others()
        if others:
            raise StoreError(
                f"The database {shown(self._path)} {state} other processes use it (pids {_listed(others)}): {remedy}."
            )

    # ---- damage ----------------------------------------------------------------------------------------------

    def rebuild(self) -> Path | None:
        """Set a damaged store aside, so that the next use builds a new one; return where the damaged file is now.

        Returns:
            None if another process did so meanwhile.

        Raises:
            StoreError: other living processes use the store, and a new one would not know their slots.
        """
        with maintenance_lock(self._directory):
            if not self._is_damaged():
                return None
            self._require_no_others(
                "is damaged, and",
                "end them, so that no slot they hold is granted twice; the next call then rebuilds it by itself",
            )
            aside = self._name_for_damaged()
            try:
                for suffix in (*_SIDECARS, ""):
                    with suppress(FileNotFoundError):
                        os.replace(_sidecar(self._path, suffix), _sidecar(aside, suffix))
            except OSError as error:
                raise self._explained(error) from error
            return aside

    def _name_for_damaged(self) -> Path:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        names = (f"{self._path.name}.damaged-{stamp}{again}" for again in ("", *(f"-{n}" for n in range(2, 100))))
        return next(path for path in map(self._path.with_name, names) if not os.path.lexists(path))

    def _is_damaged(self) -> bool:
        if not os.path.isfile(self._path):
            return os.path.lexists(self._path)
        connection = None
        try:
            connection = self._connect(self._path)
            if self._version(connection) < schema.SCHEMA_VERSION:
                return bool(integrity.integrity_errors(connection) or migration.missing_parts(connection))
            return bool(integrity.integrity_errors(connection) or integrity.missing_parts(connection))
        except SQLITE_ERRORS as error:
            return isinstance(self._explained(error), Damaged)
        except Damaged:
            return True
        except (StoreError, Busy):
            return False
        finally:
            if connection is not None:
                connection.close()

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, FileNotFoundError):
            return Busy()  # another process replaces the file at this moment
        return explained(error, self._path)


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in schema.CREATE_ALL:
        connection.execute(statement)


def _data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has written."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    """Write a whole database to a file and sync it. Outside of a transaction, every build of SQLite can do so."""
    copy = sqlite3.Connection(path, isolation_level=None)
    try:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = WAL").fetchall()
    finally:
        copy.close()
    descriptor = os.open(path, os.O_RDWR)  # Windows flushes no file that is open for reading only (FlushFileBuffers)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _listed(pids: list[int]) -> str:
    return ", ".join(map(str, pids[:MAX_LISTED_PIDS])) + (", …" if len(pids) > MAX_LISTED_PIDS else "")
