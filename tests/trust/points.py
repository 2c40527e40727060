"""Where a worker can be struck: at its statements, counted here, or at its system calls, counted by `faults.c`."""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
from typing import Any

DIE, FAIL, STOP = 1, 2, 3


class Calls:
    """The system calls of this process; it was started with the library of faults loaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_disarm.restype = ctypes.c_long

    def arm(self, at: int, deed: int, error: int) -> None:
        self._library.faults_arm(ctypes.c_long(at), deed, error)

    def disarm(self) -> int:
        """Stop counting; returns how many there were."""
        return int(self._library.faults_disarm())


class Statements:
    """The statements of this process: a point before each, one after it, and so for the end of each transaction."""

    def __init__(self) -> None:
        self.armed = False
        self._counted = self._due = self._deed = self._error = 0
        statements = self

        class Connection(sqlite3.Connection):
            def execute(self, *arguments: Any) -> sqlite3.Cursor:
                statements.pass_by()
                cursor = super().execute(*arguments)
                statements.pass_by(done=True)
                return cursor

            def executemany(self, *arguments: Any) -> sqlite3.Cursor:
                statements.pass_by()
                cursor = super().executemany(*arguments)
                statements.pass_by(done=True)
                return cursor

            def __exit__(self, *exception: Any) -> Any:
                try:
                    statements.pass_by()
                except sqlite3.Error as error:  # as where the commit itself fails
                    super().__exit__(type(error), error, None)
                    raise
                result = super().__exit__(*exception)
                statements.pass_by(done=True)
                return result

        sqlite3.Connection = Connection  # type: ignore[misc]

    def arm(self, at: int, deed: int, error: int) -> None:
        self._counted, self._due, self._deed, self._error = 0, at, deed, error
        self.armed = True

    def disarm(self) -> int:
        """Stop counting; returns how many there were."""
        self.armed = False
        return self._counted

    def pass_by(self, *, done: bool = False) -> None:
        if not self.armed or (done and self._deed == FAIL):
            return
        self._counted += 1
        if self._counted != self._due:
            return
        if self._deed == FAIL:
            failure = sqlite3.OperationalError(f"injected: {self._error}")
            failure.sqlite_errorcode = self._error
            failure.sqlite_errorname = "INJECTED"
            raise failure
        os.kill(os.getpid(), signal.SIGKILL if self._deed == DIE else signal.SIGSTOP)
