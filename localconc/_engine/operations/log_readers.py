"""Which processes read the store for so long that SQLite can't shorten its log.

SQLite's readers hold a lock on one of a few bytes of the log's index, and Linux lists all locks. This does not test a
lock on the file itself, because a process that opens and closes that file drops its own locks on it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: The bytes of the log's index that readers lock (SQLite's «WAL-index format»).
_FIRST_BYTE, _LAST_BYTE = 123, 127

#: How often to look at the locks, and the pause in between. A process that holds one each time does not stop reading.
_LOOKS: Final = 3
_PAUSE_SECONDS: Final = 0.1


def long_readers(database: Path) -> list[int]:
    """Return the pids of processes that read a store for longer than any call; `[]` if the system lists no locks."""
    lasting = _readers(database)
    for _ in range(_LOOKS - 1):
        if not lasting:
            break
        time.sleep(_PAUSE_SECONDS)
        lasting &= _readers(database)
    return sorted(lasting)


def _readers(database: Path) -> set[int]:
    try:
        inode = os.stat(f"{database}-shm").st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            lines = locks.read().splitlines()
    except OSError:
        return set()
    return {pid for pid in (_reader_in(line, inode) for line in lines) if pid > 0} - {os.getpid()}


def _reader_in(line: str, inode: int) -> int:
    """Return the pid in a line like `7: POSIX  ADVISORY  READ 1234 fd:00:5678 123 123`; 0 if it is no reader's lock.

    This does not compare devices, because some file systems show other numbers here than `stat` does.
    """
    words = line.split()
    try:
        _, kind, _, mode, pid, place, first, last = words
        if kind != "POSIX" or mode != "READ" or int(place.rpartition(":")[2]) != inode:
            return 0
        return int(pid) if int(first) >= _FIRST_BYTE and int(last) <= _LAST_BYTE else 0
    except ValueError:  # a process waits for this lock (`->`), or it reaches to the end of its file
        return 0
