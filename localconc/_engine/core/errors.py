"""What an error of SQLite or of the system means for a caller, with the remedy."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Final

from localconc._engine.core.arguments import printable
from localconc.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path


class Busy(Exception):
    """Another process uses the store at this moment; the caller may try again soon."""


class Damaged(Exception):
    """The file is not a sound database."""


# ---- SQLite's codes --------------------------------------------------------------------------------------------------

# A replacement of the standard module, such as pysqlite3, may lack these constants and `sqlite_errorcode`. SQLite never
# changes the numbers.
ERROR: Final = 1
PERM: Final = 3
BUSY: Final = 5
LOCKED: Final = 6
READONLY: Final = 8
IOERR: Final = 10
CORRUPT: Final = 11
FULL: Final = 13
CANTOPEN: Final = 14
PROTOCOL: Final = 15
NOTADB: Final = 26
IOERR_SHORT_READ: Final = 522

_BUSY_CODES: Final = frozenset({BUSY, LOCKED, PROTOCOL})
_DAMAGED_CODES: Final = frozenset({CORRUPT, NOTADB, IOERR_SHORT_READ})

#: Words of SQLite's messages, for errors that have no code.
_CODES_BY_TEXT: Final = {
    "database is locked": BUSY,
    "database table is locked": LOCKED,
    "database schema is locked": LOCKED,
    "locking protocol": PROTOCOL,
    "malformed": CORRUPT,
    "file is not a database": NOTADB,
    "file is encrypted": NOTADB,
    "disk is full": FULL,
    "readonly": READONLY,
    "unable to open": CANTOPEN,
    "access permission denied": PERM,
    "disk i/o error": IOERR,
}

_REMEDIES: Final = {
    FULL: "the disk is full: free some space; held slots stay held, and releases are retried",
    READONLY: "it is read-only: make the file and its directory writable, or change LOCALCONC_HOME",
    CANTOPEN: "it can't be opened: check the permissions of the file and its directory",
    PERM: "access is denied: check the permissions of the file and its directory",
    IOERR: "reading or writing failed: check whether the disk is full, failing or no longer there",
}

#: What helps against an error of the system that has nothing to do with the permissions of a file.
_REMEDIES_BY_NUMBER: Final = {
    errno.EMFILE: "close files that this process has open, or raise its limit of open files (ulimit -n)",
    errno.ENFILE: "close files that any process has open, or raise the machine's limit of open files",
    errno.ENAMETOOLONG: "set LOCALCONC_HOME to a directory with a shorter path",
}

#: How long the path of a database may be: 512 bytes (SQLite's os_unix.c), less `-journal`, less one because a database
#: is built aside under a longer name.
MAX_PATH_BYTES: Final = 512 - len("-journal") - 1

#: More descriptors than an open store needs, in pairs.
_PIPES_TO_TRY: Final = 4


def error_code(error: Exception) -> int:
    """Return SQLite's extended code of an error. If the module gives no number, the name or the text tells it."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code
    name = str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")
    by_name = globals().get(name)
    if isinstance(by_name, int):
        return by_name
    text = str(error).lower()
    return next((code for words, code in _CODES_BY_TEXT.items() if words in text), ERROR)


# ---- errors for the caller -------------------------------------------------------------------------------------------


def explained(error: Exception, path: Path) -> Exception:
    """Return the error to raise instead: `Busy`, `Damaged`, or a `StoreError` that says what to do."""
    if isinstance(error, OSError):
        return StoreError(
            f"The home {shown(path.parent)} can't be used ({error.strerror}: {shown(error.filename or path)}): "
            + remedy_for(error, "check its permissions and free some space, or set LOCALCONC_HOME to another directory")
            + "."
        )
    if isinstance(error, UnicodeDecodeError):
        return Damaged(str(error))
    extended_code = error_code(error)
    code = extended_code & 0xFF
    if code in _BUSY_CODES:
        return Busy()
    if code in _DAMAGED_CODES or extended_code in _DAMAGED_CODES or "no such table" in str(error):
        return Damaged(str(error))
    if code == CANTOPEN and os.path.isdir(path):
        return Damaged(f"{shown(path)} is a directory")
    remedy = _REMEDIES.get(code, "if this persists, move it away; localconc builds a new one from the definitions")
    if code == CANTOPEN:
        remedy = _remedy_if_not_opened(path) or remedy
    return StoreError(f"The database {shown(path)} can't be used ({error}): {remedy}.")


def remedy_for(error: OSError, otherwise: str) -> str:
    """Return what helps against an error of the system: what its number tells, or what the caller knows otherwise."""
    return _REMEDIES_BY_NUMBER.get(error.errno or 0, otherwise)


def _remedy_if_not_opened(path: Path) -> str:
    """Return what helps if SQLite, which gives no reason, can't open a database; "" if the reason is unknown."""
    length = len(os.fsencode(os.path.realpath(path)))
    if length > MAX_PATH_BYTES and sys.platform != "win32":
        return f"its path has {length} bytes, and SQLite takes {MAX_PATH_BYTES}: set LOCALCONC_HOME to a shorter one"
    is_permitted = all(os.access(each, os.R_OK | os.W_OK) for each in (path.parent, path) if os.path.lexists(each))
    return _remedy_if_out_of_descriptors() if is_permitted else ""


def _remedy_if_out_of_descriptors() -> str:
    descriptors: list[int] = []
    try:
        for _ in range(_PIPES_TO_TRY):
            descriptors += os.pipe()
    except OSError as error:
        return remedy_for(error, "")
    finally:
        for each in descriptors:
            os.close(each)
    return ""


def malformed(what: str, value: object) -> StoreError:
    """Return the error for a row that localconc did not write: a failing disk or another user of the home did."""
    return StoreError(f"{what} in the database is malformed ({str(value)[:80]!r}). Run `localconc doctor`.")


def shown(path: object) -> str:
    """Return a path as messages show it, with a replacement character for each part that is not Unicode."""
    return printable(str(path))
