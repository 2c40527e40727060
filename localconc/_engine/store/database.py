"""The connection of one process to its store, with its transactions.

Writers exclude each other by SQLite's own write lock. A transaction asks for it once, without waiting, and raises
`Busy` if another process has it. The caller decides how to pause (a thread sleeps, a task awaits) and until when. So no
thread holds one lock while it waits for another.

A connection must not cross a fork, because SQLite keeps its records of file locks in each process. A hook closes the
connection before a fork, and both sides open a new one at their next use.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeVar

from localconc._engine.core.clock import monotonic
from localconc._engine.core.errors import READONLY, Busy, error_code, explained
from localconc._engine.homes.files import is_same
from localconc._engine.homes.home import DATABASE_NAME, prepare
from localconc._engine.store.files import checkpoints
from localconc._engine.store.files.opened import OpenFiles
from localconc._engine.store.recovery import SQLITE_ERRORS, Recovery
from localconc._engine.store.reentry import InterruptedUses, is_interrupted, used_from_handler
from localconc._locks import new_lock
from localconc.errors import LocalconcError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from localconc._engine.store.files.anchors import Anchors
    from localconc._engine.store.files.lost_logs import OtherProcesses

Result = TypeVar("Result")
Work = TypeVar("Work")

#: How often a process checks that its open files are still the ones at their paths.
VERIFY_EVERY_SECONDS: Final = 0.01


class Database:
    """This process's connection to the database of one home: opened, verified, closed; and its transactions.

    Args:
        directory: the home.
        on_open: called after each opening, before anything else uses the connection.
        on_opened: called after that, when the store is in use; must not raise.
        others: the other processes that use the home: nothing is rebuilt behind their backs.

    Attributes:
        lock: lets one thread of this process at a time use the connection.
        verify_after: when (by the monotonic clock) the next use has to check the files again.
    """

    def __init__(
        self, directory: Path, on_open: Callable[[], None], on_opened: Callable[[], None], others: OtherProcesses
    ) -> None:
        self.directory = directory
        self.path = directory / DATABASE_NAME
        self._files = OpenFiles(others.close_log)
        self.recovery = Recovery(self.path, others, self._files)
        self.lock = new_lock()
        self.verify_after = 0.0
        self._connection: sqlite3.Connection | None = None
        self._opening: sqlite3.Connection | None = None  # connected, but not in use yet
        self._anchors: Anchors | None = None
        self.is_claim_in_place = others.is_claim_in_place
        self._being_opened: sqlite3.Connection | None = None  # while `on_open` runs
        self._interrupted = InterruptedUses()
        self._times_closed = 0
        self._on_open = on_open
        self._on_opened = on_opened

    # ---- transactions; the callers of the fast ones have the lock --------------------------------------------

    def execute_fast(self, statement: str, parameters: Sequence[Any], releases: bool = False) -> int:
        """Run one statement as a transaction of its own; return how many rows it changed, -1 if a trigger refused it.

        Raises:
            Busy: another process is writing, or the store is not open, or deleted under a release; nothing was done.
        """
        connection, anchors = self._connection, self._anchors
        try:
            if connection is None or anchors is None or connection.in_transaction or not anchors.are_at_hand(releases):
                raise self._not_at_hand()
            return connection.execute(statement, parameters).rowcount
        except sqlite3.IntegrityError:
            return -1
        except SQLITE_ERRORS as error:
            raise self._explained(error, connection) from error

    def execute_either_fast(
        self, statement: str, parameters: Sequence[Any], other: str, its: Sequence[Any], releases: bool = False
    ) -> tuple[tuple[Any, ...] | None, int]:
        """Run a statement and return its only row; if it has none, run another one and return how many it changed."""
        connection, anchors = self._connection, self._anchors
        try:
            if connection is None or anchors is None or connection.in_transaction or not anchors.are_at_hand(releases):
                raise self._not_at_hand()
            # C throughout: a handler of a signal between the two calls would not find the transaction that is open.
            row = next(map(sqlite3.Cursor.fetchone, map(connection.execute, (statement,), (parameters,))))
            return (None, connection.execute(other, its).rowcount) if row is None else (row, 0)
        except SQLITE_ERRORS as error:
            raise self._explained(error, connection) from error

    # A signal's exception can strike at the first instruction of any Python function. If that is the exit of a context
    # manager, the transaction stays open for as long as a program keeps the traceback. So only `with` blocks written in
    # C (a lock, a connection) surround the work, in one frame.

    def transact(self, begin: str, work: Callable[[sqlite3.Connection, Work], Result], what: Work) -> Result:
        """Do some work in a transaction: committed after it, rolled back if it raises.

        Args:
            begin: `BEGIN IMMEDIATE` to write; `BEGIN` to read consistently, without a lock that stops other processes.
            work: called with the connection and `what`.

        Raises:
            Busy: another process is writing; nothing was done.
        """
        with self.lock:
            connection = None
            try:
                connection = self._ready()
                if self._anchors is None or not self._anchors.are_at_hand(releases=True):
                    raise self._not_at_hand()
                with connection:
                    connection.execute(begin)
                    return work(connection, what)
            except LocalconcError:  # a time-out is an OSError as well
                raise
            except (*SQLITE_ERRORS, OSError) as error:
                raise self._explained(error, connection) from error

    def maintain(self, work: Callable[[sqlite3.Connection, Anchors, Path], None]) -> None:
        """Do one of the works of `checkpoints` outside of a transaction."""
        with self.lock:
            connection = self._ready()
            assert self._anchors is not None
            try:
                work(connection, self._anchors, self.directory)
            except sqlite3.Error as error:
                raise self._explained(error) from error

    # ---- opening and closing ---------------------------------------------------------------------------------

    def ensure_open(self) -> None:
        """Open the store if it is closed, and check that it is still the one at its path."""
        with self.lock:
            try:
                self._ready()
            except OSError as error:
                raise self._explained(error) from error

    def close(self) -> None:
        """Let go of the connection; the next use opens anew."""
        with self.lock:
            connections, anchors = self._let_go()
            is_in_use = self._interrupted.note(connections, anchors, self._being_opened)
            if connections and not is_in_use:  # anchors alone stay: an exception may have left their connection open
                self._files.close(connections, anchors)

    def close_for_good(self) -> None:
        """Close all that is open at the end of its use, also what exceptions have left open."""
        with self.lock:
            self.close()
            self._files.close_rest()

    def _let_go(self) -> tuple[list[sqlite3.Connection], Anchors | None]:
        connections = [each for each in (self._connection, self._opening) if each is not None]
        anchors = self._anchors
        self._connection = self._opening = self._anchors = None
        self.verify_after = 0.0
        self._times_closed += 1
        return connections, anchors

    def close_in_child(self) -> None:
        """Close the copies of the parent's connections in a forked child."""
        self._files.close_in_child()
        self._let_go()
        self._interrupted.clear()
        self.lock = new_lock()

    def _ready(self) -> sqlite3.Connection:
        times_closed = self._times_closed
        try:
            return self._verified()
        except (AssertionError, AttributeError, ValueError, sqlite3.ProgrammingError):
            if times_closed == self._times_closed:
                raise
            raise Busy from None  # a handler of a signal forked at some moment of it, which closes the database

    def _verified(self) -> sqlite3.Connection:
        if self._interrupted:
            if is_interrupted(self, Database.transact) or is_interrupted(self, Database._open):
                raise used_from_handler(self.path, "its own use of the database, and forked")
            for interrupted, anchors in self._interrupted.take():
                self._files.close([interrupted], anchors)
        connection = self._connection
        if connection is not None and (self._anchors is None or not self._anchors.are_intact()):
            _, anchors = self._let_go()
            if anchors is not None:
                self._files.close_lost(connection, anchors)  # other code has closed its descriptors
            connection = None
        if connection is not None and connection.in_transaction:
            # Only this very thread can be here: it interrupted itself, in a signal handler, inside a transaction; or an
            # exception out of nowhere (a debugger's, say) struck as the transaction was to end.
            if is_interrupted(self, Database.transact):
                raise used_from_handler(self.path, "one of its own transactions")
            connection.rollback()
        if connection is not None and monotonic() >= self.verify_after and not self.is_in_place():
            self._restore_or_close()
            connection = self._connection
        if connection is None:
            if is_interrupted(self, Database._open):
                raise used_from_handler(self.path, "the opening of the database")
            if is_interrupted(self._files, OpenFiles.close):
                raise used_from_handler(self.path, "the closing of the database")
            connection = self._open()
        return connection

    def _open(self) -> sqlite3.Connection:
        connection, self._opening = self._opening, None
        if connection is not None and (self._anchors is None or not self._anchors.are_in_place()):
            self._drop(connection)
            connection = None
        if connection is None:
            connection = self._connect_in_place()
        try:
            self._being_opened = connection
            self._on_open()
        except BaseException as error:
            if isinstance(error, Busy):  # a hundred processes may start at once: keep the connection for the next try
                self._opening = connection
            else:
                self._drop(connection)
            raise
        finally:
            self._being_opened = None
        if self._interrupted.has(connection):
            raise Busy
        self._connection = connection
        self.verify_after = monotonic() + VERIFY_EVERY_SECONDS
        checkpoints.checkpoint_if_due(connection, self._anchors, self.directory)
        self._on_opened()
        if self._connection is None:  # `on_opened` found it damaged or read-only, and closed it
            raise Busy
        return connection

    def transact_while_opening(
        self, begin: str, work: Callable[[sqlite3.Connection, Work], Result], what: Work
    ) -> Result:
        """Do some work in a transaction of the connection that is being opened; only `on_open` may call this."""
        connection = self._being_opened
        assert connection is not None
        try:
            with connection:
                connection.execute(begin)
                return work(connection, what)
        except LocalconcError:
            raise
        except (*SQLITE_ERRORS, OSError) as error:
            raise self._explained(error) from error

    def _connect_in_place(self) -> sqlite3.Connection:
        """Connect to the store at its path; create it if it is missing, migrate it if it is of an older version."""
        prepare(self.directory)
        self._files.close_rest()
        connection = self.recovery.connect_in_place()
        try:
            self._anchors = self._files.anchor(self.path)
        except BaseException as error:
            self._files.close_rest()
            if isinstance(error, FileNotFoundError):
                raise Busy from error  # another process replaces the file at this moment
            raise
        return connection

    def _drop(self, connection: sqlite3.Connection) -> None:
        anchors, self._anchors = self._anchors, None
        self._files.close([connection], anchors)

    # ---- a store that was deleted, replaced, or lost ---------------------------------------------------------

    def is_in_place(self) -> bool:
        """Return whether the store is open, and was not deleted or replaced since; bring in a log that is long."""
        connection, anchors = self._connection, self._anchors
        if connection is None or anchors is None or not anchors.are_intact():
            return False
        is_in_place = anchors.are_in_place() and self.is_claim_in_place()
        if not is_in_place and (anchors.are_unlinked() or os.path.lexists(self.path)):
            return False  # else this process does not see the path any more (it changed its root, say), but others do
        self.verify_after = monotonic() + VERIFY_EVERY_SECONDS
        checkpoints.checkpoint_if_due(connection, anchors, self.directory)
        return True

    def has_its_files(self) -> bool:
        """Return whether the store is open, and its files are at their paths; who releases or waits needs no more."""
        anchors = self._anchors  # read once: the caller may have no lock
        return anchors is not None and anchors.are_in_place()

    def _restore_or_close(self) -> None:
        """Restore the store if it was deleted while it was open; close it, so that the next use opens what is there."""
        if self._connection is not None and self._anchors is not None and self._anchors.are_unlinked():
            prepare(self.directory)
            self.recovery.restore(self._connection, self._anchors)
        self.close()

    def identities(self) -> tuple[object, tuple[int, int]]:
        """Return what identifies the open store, also by its log, which may be another one; the inodes of both."""
        assert self._anchors is not None
        database, log = self._anchors.database_identity, self._anchors.log_identity
        return (database, self._files.log_generation), (database[1], log[1])

    def state(self) -> bytes | None:
        """Return what identifies the last commit to the open store; None if that takes a look at the store."""
        anchors = self._anchors
        return None if anchors is None else anchors.index.state()

    def was_moved(self) -> bool:
        """Return whether the open file is no longer the one at the path; if none is open, whether there is none."""
        anchors = self._anchors
        return not (os.path.lexists(self.path) if anchors is None else is_same(self.path, anchors.database_identity))

    def rebuild(self) -> Path | None:
        """Set a damaged store aside and make room for a new one; None if another process did so meanwhile."""
        with self.lock:
            self.close()
            self._files.close_rest()
            return self.recovery.rebuild()

    def _not_at_hand(self) -> Busy:
        self.verify_after = 0.0  # the next try looks whether the files are still the ones at their paths
        return Busy()

    def _explained(self, error: Exception, connection: sqlite3.Connection | None = None) -> Exception:
        """Return the error to raise for one that a use of this connection has raised."""
        is_busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        if is_busy or (connection is not None and connection is not self._connection):
            return Busy()  # or a handler of a signal has forked just before this use, which closed the connection
        if isinstance(error, sqlite3.Error) and error_code(error) & 0xFF == READONLY:
            self.close()  # a connection that was opened read-only stays so, even if the file becomes writable
        if (
            self._anchors is None or self._anchors.are_unlinked() or os.path.isdir(self.directory)
            if isinstance(error, FileNotFoundError)
            else "no such table" in str(error) and self.was_moved()
        ):
            self.verify_after = 0.0  # another process replaces the file at this moment, or has just deleted the home
            return Busy()
        return explained(error, self.path)
