"""The file, its lock, its connection, its transactions.

One connection per process, behind a thread lock. Writers exclude each other by SQLite's own write lock, asked for
once without waiting: a store that is busy raises `Busy`, and whoever called decides how to pause (a thread sleeps,
a task awaits) and until when. So no lock is held by anybody who waits for another.

A connection must not cross a fork: SQLite's bookkeeping of file locks is per process. `before_fork` therefore
closes it, and both sides open anew at their next use.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from filelock import lock_descriptor, unlock_descriptor

from localconc._engine import schema, soundness
from localconc._engine.faults import Busy, Damaged, explained
from localconc._engine.home import (
    DATABASE_NAME,
    GATE_NAME,
    create_file,
    file_mode,
    give_to_group,
    is_group_shared,
    open_or_create_file,
    prepare,
)
from localconc.errors import LocalconcError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

Result = TypeVar("Result")

#: How often a connection makes sure that its file is still the one at its path.
VERIFY_EVERY_SECONDS: Final = 0.01


class Database:
    """The store of one home, for this process.

    Args:
        directory: the home.
        on_open: called with this database after each opening, before anything else uses it.
        has_other_users: tells whether other living processes use the home (so that nothing is healed behind them).
    """

    def __init__(
        self,
        directory: Path,
        on_open: Callable[[], None],
        has_other_users: Callable[[], list[int]],
    ) -> None:
        self.directory = directory
        self.path = directory / DATABASE_NAME
        self._path_text = str(self.path)
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self._newcomer: sqlite3.Connection | None = None  # open, but `on_open` found the store busy
        self.store_identity = ""
        self._on_open = on_open
        self._has_other_users = has_other_users
        self._inode = 0
        self.verify_after = 0.0  # until then the connection is as good as it was when it was last looked at

    # ---- transactions ------------------------------------------------------------------------------------------

    def execute_alone(self, statement: str, parameters: Sequence[Any]) -> int:
        """One statement as a transaction of its own; returns how many rows it changed. The store must be open."""
        with self.lock:
            connection = self.connection
            if connection is None or connection.in_transaction:
                raise Busy
            try:
                return connection.execute(statement, parameters).rowcount
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def row_alone(self, statement: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of one query, as a transaction of its own."""
        with self.lock:
            connection = self.connection or self._ready()
            try:
                row: tuple[Any, ...] | None = connection.execute(statement, parameters).fetchone()
                return row
            except (sqlite3.Error, OSError) as error:
                raise self._explained(error) from error

    # A signal's exception can strike at the first instruction of any function: of the exit of a context manager, too,
    # if that is written in Python; its transaction would then stay open for as long as somebody keeps the traceback.
    # So these two have only the interpreter's own `with` blocks (a lock, a connection) around the work, in one frame.

    def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do some work in a write transaction: committed after it, rolled back if it raises."""
        return self._transact("BEGIN IMMEDIATE", work)

    def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do some work on a consistent look at the store, without a lock that others could feel."""
        return self._transact("BEGIN", work)

    def _transact(self, begin: str, work: Callable[[sqlite3.Connection], Result]) -> Result:
        with self.lock:
            try:
                connection = self._ready()
                with connection:
                    connection.execute(begin)
                    return work(connection)
            except LocalconcError:  # some of them are errors of the system, too: a time-out
                raise
            except (sqlite3.Error, OSError) as error:
                raise self._explained(error) from error

    def _is_at_work(self) -> bool:
        """Whether a transaction of this database is under way further up this thread's stack."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code is Database._transact.__code__ and frame.f_locals["self"] is self:
                return True
            frame = frame.f_back
        return False

    def make_durable(self) -> None:
        """Bring what was committed to the disk itself, so that it survives a power loss (not only any crash)."""
        with self.lock:
            connection = self._ready()
            with suppress(sqlite3.Error):  # a checkpoint syncs the log; the journal of definitions is synced already
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # ---- opening and closing -----------------------------------------------------------------------------------

    def ensure_open(self) -> None:
        """Open the store if it is not, and make sure that it is still the one at its path."""
        with self.lock:
            try:
                self._ready()
            except OSError as error:
                raise self._explained(error) from error

    def close(self) -> None:
        """Let go of the connection; the next use opens anew."""
        with self.lock:
            connections = (self.connection, self._newcomer)
            self.connection = self._newcomer = None
            self.verify_after = 0.0
            for connection in connections:
                if connection is not None and not connection.in_transaction:
                    connection.close()

    def _ready(self) -> sqlite3.Connection:
        if self.connection is not None and self.connection.in_transaction:
            # Only this very thread can be here: it interrupted itself, in a signal handler, inside a transaction;
            # or an exception out of nowhere (a debugger's, say) struck as the transaction was to end.
            if not self._is_at_work():
                self.connection.rollback()
                return self._ready()
            raise StoreError(
                f"The database {self.path} was used from a signal handler that interrupted one of its own "
                "transactions: set a flag in the handler, and use limits outside it."
            )
        if self.connection is not None and time.monotonic() >= self.verify_after:
            self._verify_in_place()
        if self.connection is None:
            self._open()
        assert self.connection is not None
        return self.connection

    def _open(self) -> None:
        connection, self._newcomer = self._newcomer, None
        if connection is not None and self.was_moved():
            connection.close()
            connection = None
        if connection is None:
            connection = self._connect_in_place()
        try:
            self.connection = connection
            self.verify_after = time.monotonic() + VERIFY_EVERY_SECONDS
            self._on_open()
        except BaseException as error:
            self.connection = None
            if isinstance(error, Busy):  # opening costs more than trying again: a hundred may start at the same time
                self._newcomer = connection
            else:
                connection.close()
            raise

    def _connect_in_place(self) -> sqlite3.Connection:
        """Connect to the store at its path, made there if it is missing."""
        prepare(self.directory)
        if self.path.is_symlink():
            raise StoreError(
                f"The database {self.path} is a symbolic link, which localconc does not follow: remove it, "
                "or set LOCALCONC_HOME to the directory it points to."
            )
        if not self.path.exists():
            with self._gate():
                if not self.path.exists():
                    self._create()
        connection = self._connect(self.path)
        try:
            self._inode = self.path.stat().st_ino
            self._check_version(connection)
            row = connection.execute("SELECT value FROM meta WHERE key = 'store_identity'").fetchone()
            self.store_identity = row[0] if row else ""
            if is_group_shared(self.directory):
                for suffix in ("-wal", "-shm"):
                    give_to_group(_sidecar(self.path, suffix))
        except BaseException as error:
            connection.close()
            if isinstance(error, (sqlite3.Error, FileNotFoundError)):
                raise self._explained(error) from error
            raise
        return connection

    def _connect(self, path: Path) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint = {schema.CHECKPOINT_PAGES}")
            connection.execute("PRAGMA trusted_schema = OFF")
        except sqlite3.Error as error:
            connection.close()
            raise self._explained(error) from error
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.SCHEMA_VERSION:
            raise StoreError(
                f"The database {self.path} has version {version}, newer than this localconc understands "
                f"({schema.SCHEMA_VERSION}): upgrade localconc, or set LOCALCONC_HOME to another directory."
            )
        if version == 0 and not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            raise Damaged(f"{self.path} has no tables")
        for step in range(version, schema.SCHEMA_VERSION):
            self._migrate(connection, step)

    def _migrate(self, connection: sqlite3.Connection, version: int) -> None:
        if version not in schema.MIGRATIONS:
            raise Damaged(f"{self.path} has version {version}, which was never one of localconc's")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == version:
            for statement in schema.MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")

    # ---- a store that is missing, moved or damaged ---------------------------------------------------------------

    def _create(self) -> None:
        """Build a store aside and move it into its place, whole: nobody ever sees half of one."""
        others = self._has_other_users()
        if others:
            raise StoreError(
                f"The database {self.path} was deleted while other processes use it (pids {_listed(others)}): one of "
                "them restores it at its next call; otherwise end them and call again."
            )
        with self._building() as connection:
            for statement in schema.CREATE_ALL:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO meta VALUES ('store_identity', ?), ('boot_identity', ?)",
                (os.urandom(16).hex(), schema.NEVER_BOOTED),
            )

    @contextmanager
    def _building(self) -> Iterator[sqlite3.Connection]:
        fresh = self.path.with_suffix(".new")
        for leftover in (
            fresh,
            _sidecar(fresh, "-wal"),
            _sidecar(fresh, "-shm"),
            _sidecar(fresh, "-journal"),
        ):
            leftover.unlink(missing_ok=True)
        try:
            os.close(create_file(fresh, file_mode(self.directory)))
        except OSError as error:
            raise StoreError(
                f"The database {self.path} can't be created ({error.strerror}): make the directory writable and "
                "leave some space, or set LOCALCONC_HOME to another directory."
            ) from error
        connection = self._connect(fresh)
        try:
            connection.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            connection.close()
        for suffix in ("-wal", "-shm"):
            _sidecar(self.path, suffix).unlink(missing_ok=True)  # of a database that is no more
        os.replace(fresh, self.path)

    def _verify_in_place(self) -> None:
        """Notice a store that was deleted or replaced while it was open, and restore a deleted one from memory."""
        self.verify_after = time.monotonic() + VERIFY_EVERY_SECONDS
        try:
            in_place = os.stat(self._path_text).st_ino == self._inode
        except OSError:
            in_place = False
        if in_place:
            return
        if not self.path.exists():
            prepare(self.directory)
            with self._gate():
                if not self.path.exists():
                    self._restore_from_connection()
        self.close()

    def _restore_from_connection(self) -> None:
        """Write the deleted store, which lives on in the open connection, to its path again; and close it to others.

        Processes that still have the deleted file open find its tables gone and come over.
        """
        old = self.connection
        assert old is not None
        try:
            old.execute("BEGIN IMMEDIATE")
            copy = old.serialize()
            fresh = self.path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            with os.fdopen(create_file(fresh, file_mode(self.directory)), "wb") as file:
                file.write(copy)
                file.flush()
                os.fsync(file.fileno())
            for suffix in ("-wal", "-shm"):
                _sidecar(self.path, suffix).unlink(missing_ok=True)
            old.execute("DROP TABLE slots")
            os.replace(fresh, self.path)
            old.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error
        finally:
            if old.in_transaction:
                _roll_back(old)

    def heal(self) -> Path | None:
        """Set a damaged store aside and make room for a new one; None if somebody else did so meanwhile.

        Raises:
            StoreError: other living processes use it, whose slots a new store would not know.
        """
        with self.lock, self._gate():
            self.close()
            if not self._is_damaged():
                return None
            others = self._has_other_users()
            if others:
                raise StoreError(
                    f"The database {self.path} is damaged, and other processes use it (pids {_listed(others)}): end "
                    "them, so that no slot they hold is given twice; the next call then rebuilds it by itself."
                )
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
            names = (f"{self.path.name}.damaged-{stamp}{again}" for again in ("", *(f"-{n}" for n in range(2, 100))))
            aside = next(path for path in map(self.path.with_name, names) if not path.exists())
            try:
                for suffix in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        os.replace(_sidecar(self.path, suffix), _sidecar(aside, suffix))
            except OSError as error:
                raise self._explained(error) from error
            return aside

    def _is_damaged(self) -> bool:
        if not self.path.exists():
            return False
        if not self.path.is_file():
            return True
        connection = None
        try:
            connection = self._connect(self.path)
            self._check_version(connection)
            return bool(soundness.integrity_errors(connection) or soundness.missing_parts(connection))
        except sqlite3.Error as error:
            return isinstance(self._explained(error), Damaged)
        except Damaged:
            return True
        except (StoreError, Busy):
            return False
        finally:
            if connection is not None:
                connection.close()

    # ---- errors and the gate -----------------------------------------------------------------------------------

    @contextmanager
    def _gate(self) -> Iterator[None]:
        """Only one process at a time creates, restores or heals; for the others the store is busy."""
        try:
            descriptor = open_or_create_file(self.directory / GATE_NAME, file_mode(self.directory))
        except OSError as error:
            raise StoreError(
                f"The file {self.directory / GATE_NAME} can't be opened ({error.strerror}): make the directory "
                "writable, or set LOCALCONC_HOME to another directory."
            ) from error
        try:
            if not self._try_gate(descriptor):
                raise Busy
            yield
            unlock_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def _try_gate(self, descriptor: int) -> bool:
        try:
            return lock_descriptor(descriptor, blocking=False)
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            self.close()  # what could not be opened for writing once would stay so for good
        if isinstance(error, FileNotFoundError):
            return Busy()  # it is being replaced at this moment
        if "no such table" in str(error) and self.was_moved():
            self.verify_after = 0.0  # restored elsewhere by another process
            return Busy()
        return explained(error, self.path)

    def was_moved(self) -> bool:
        """Whether the file at the path is another than the one that is open, or none."""
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        connection.execute("ROLLBACK")


def _sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _listed(pids: list[int]) -> str:
    return ", ".join(str(pid) for pid in pids[:8]) + (", …" if len(pids) > 8 else "")
