"""What an error of SQLite or of the system means to the caller, and what can be done about it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from localconc.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


class Busy(Exception):
    """The store can't be used at this moment; try again soon."""


class Damaged(Exception):
    """The file is not a sound database."""


_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_SHORT_READ})
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space; what is held stays held, and giving back is tried again",
    sqlite3.SQLITE_READONLY: "it is read-only: make the file and its directory writable, or change LOCALCONC_HOME",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened: look at the permissions of the file and its directory",
    sqlite3.SQLITE_PERM: "access is denied: look at the permissions of the file and its directory",
    sqlite3.SQLITE_IOERR: "reading or writing it failed: look at the disk (full, failing, or taken away?)",
}


def explained(error: Exception, path: Path) -> Exception:
    """The error to raise in its place: `Busy`, `Damaged`, or a `StoreError` with the remedy."""
    if isinstance(error, OSError):
        return StoreError(
            f"The home {path.parent} can't be used ({error.strerror}: {error.filename or path}): look at its "
            "permissions and leave some space, or set LOCALCONC_HOME to another directory."
        )
    extended_code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended_code & 0xFF
    if code in _BUSY:
        return Busy()
    if code in _DAMAGED or extended_code in _DAMAGED or "no such table" in str(error):
        return Damaged(str(error))
    if code == sqlite3.SQLITE_CANTOPEN and path.is_dir():
        return Damaged(f"{path} is a directory")
    remedy = _REMEDIES.get(code, "set it aside if this goes on; a new one is built from the definitions beside it")
    return StoreError(f"The database {path} can't be used ({error}): {remedy}.")
