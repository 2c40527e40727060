"""Which log each living process has open, as its owner's file tells.

A log that is removed under an idle process takes along what only it tells, such as the slots that this process holds. A
process that opens the store afterwards can't see that there, for the store looks as if all had closed it. So each
process writes down which log it has open, and that it has none before it closes it.
"""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.records import LostLog
from localconc._engine.homes.files import read_in, write_at
from localconc._engine.homes.home import DATABASE_NAME
from localconc._engine.liveness import owner as owners
from localconc._engine.liveness.processes import has_exited, is_own_table, pid_namespace

if TYPE_CHECKING:
    from pathlib import Path

    from localconc._engine.liveness.owner import Owner

#: Where an owner's file tells it: the inodes of the database, of its log, and of the pid namespace.
_AT: Final = 40
_INODES: Final = struct.Struct("<QQQ")
_NONE: Final = _INODES.pack(0, 0, 0)


class _Noted(NamedTuple):
    database: int
    log: int
    pid_namespace: int


def note(owner: Owner, database: int, log: int) -> None:
    """Write down which log this process has open."""
    write_at(owner.descriptor, _INODES.pack(database, log, _number_in(pid_namespace())), _AT)


def note_none(owner: Owner) -> None:
    """Write down that this process has no log open; before it closes it."""
    if owner.holds_its_descriptor():
        write_at(owner.descriptor, _NONE, _AT)


def lost_logs(directory: Path, except_key: str) -> list[LostLog]:
    """Return the logs that others have open and that are not at their path.

    A log that a process has noted is at its path as long as nobody removes it. So one that is not there between two
    looks at the same note is lost.
    """
    before = _notes(directory, except_key)
    if not before:
        return []
    database = _inode(directory / DATABASE_NAME)
    log = _inode(directory / f"{DATABASE_NAME}-wal")
    after = _notes(directory, except_key)
    return [
        LostLog(key, pid, noted.log, is_visible=_is_visible(noted))
        for key, (noted, pid) in before.items()
        if after.get(key) == (noted, pid) and noted.database == database and noted.log != log and _is_open(noted, pid)
    ]


def forget(directory: Path, key: str) -> None:
    """Write down for another process that the log which it has open counts no more: it was brought back."""
    with suppress(OSError):
        descriptor = os.open(owners.path_of(directory, key), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            write_at(descriptor, _NONE, _AT)
        finally:
            os.close(descriptor)


def _is_open(noted: _Noted, pid: int) -> bool:
    """Return whether the process that made the note lives; a command may have inherited the lock of its file."""
    return not _is_visible(noted) or not has_exited(pid)


def _is_visible(noted: _Noted) -> bool:
    """Return whether the pid of the process that made the note is of this process's table."""
    own = pid_namespace()
    return is_own_table(own) and noted.pid_namespace == _number_in(own)


def _notes(directory: Path, except_key: str) -> dict[str, tuple[_Noted, int]]:
    found = {}
    for key, pid in owners.living(directory, except_key).items():
        with suppress(OSError):
            content = read_in(owners.path_of(directory, key), _INODES.size, _AT)
            if len(content) == _INODES.size and content != _NONE:
                found[key] = _Noted(*_INODES.unpack(content)), pid
    return found


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _number_in(namespace: str) -> int:
    """Return the number in a text such as `pid:[4026531836]`."""
    digits = re.search(r"\d+", namespace)
    return int(digits[0]) if digits else 0
