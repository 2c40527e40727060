"""Descriptors of this process on the files of an open store, which show whether SQLite's descriptors are still open.

SQLite keeps the numbers of its descriptors to itself. These stand for them: whoever closes all descriptors of a process
closes these, too. On Linux they also hold locks that only their own closing drops: SQLite's locks belong to the
process, and any code in it that opens a file of the store and closes it again (a backup, `shutil.copytree`) drops them
all. A later process would then believe that it is alone, and remove the log under the others.

On Windows nothing is opened: an open file can neither be deleted nor replaced there, and a descriptor of ours would
keep SQLite from removing the log at the end. SQLite has handles there, which no program closes by their numbers.
"""

from __future__ import annotations

import os
import struct
import sys
from contextlib import suppress
from functools import partial
from stat import ST_NLINK
from typing import TYPE_CHECKING, Final

from localconc._engine.core.clock import monotonic, wall
from localconc._engine.core.errors import shown
from localconc._engine.homes.files import Identity, close_same, identity_of, identity_or_none, is_same
from localconc._engine.store.files.log_index import LogIndex
from localconc.errors import StoreError

if sys.platform == "linux":
    import fcntl

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

#: The position of the anchor on the database. A file that takes its number over is hardly ever at this position.
POSITION: Final = 0x6C636F6E

#: The bytes that SQLite locks (its os_unix.c): the shared range of the database, and the «dead man's switch» of the
#: log's index. A process that finds either locked does not take itself for the only one.
_SHARED_RANGE: Final = (0x40000000 + 2, 510)
_DEAD_MANS_SWITCH: Final = (128, 1)

#: Whether a file that is open can be deleted, renamed and replaced. On Windows, `os.open` shares a file for reading and
#: writing, but not for deleting (Microsoft's `_open`), and so does SQLite (its os_win.c).
OPEN_FILES_CAN_MOVE: Final = sys.platform != "win32"

#: A directory that changed longer ago than this has another time after its next change. File systems count nanoseconds,
#: by a clock that ticks a hundred times a second or more often, or else seconds.
FINE_TIMES_SECONDS: Final = 0.1
COARSE_TIMES_SECONDS: Final = 3.0

#: How often to look at the files all the same: what is mounted over one does not change the directory.
LOOK_EVERY_SECONDS: Final = 3.0

#: The status of a file of which it takes a look at its path to see whether it was deleted.
_EXISTS: Final[Callable[[], Sequence[float]]] = partial(tuple, [1] * (ST_NLINK + 1))

#: Those of this process that are open, of all of its stores.
_open: Final[set[Anchors]] = set()


class Anchors:
    """The anchors of one open store: on its database, on its log, on the index of its log.

    Attributes:
        index: the index of the log.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [str(path), f"{path}-wal", f"{path}-shm"]
        self._descriptors: list[int] = []
        self._identities: list[Identity] = []
        self._sqlite_descriptors: list[tuple[int, Identity]] = []
        self._directory = str(path.parent)
        self._seen_in_place: tuple[int, int, int] | None = None  # the directory, when the files last were
        self._look_at = 0.0
        self._status = _EXISTS
        self.index = LogIndex(self._paths[2])

    def open(self) -> None:
        """Open the files that SQLite has open.

        Raises:
            FileNotFoundError: one of them is being replaced at this moment.
        """
        if not OPEN_FILES_CAN_MOVE:
            self._identities = [identity_of(each) for each in self._paths]
            self._tell, self._status = partial(int, POSITION), _EXISTS
            return
        _open.add(self)
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        for each in self._paths[len(self._descriptors) :]:  # all of them, unless these were kept
            self._descriptors.extend(map(os.open, (each,), (flags,)))  # all of it is C: no descriptor is ever lost
            self._identities.append(identity_of(self._descriptors[-1]))
        self.index.map(self._descriptors[2])
        self._first = self._descriptors[0]
        self._tell = partial(os.lseek, self._first, 0, os.SEEK_CUR)
        self._status = partial(os.fstat, self._first)
        if not self._status()[ST_NLINK]:
            self._status = _EXISTS  # a file system that does not count links, or the next look finds it deleted
        self._sqlite_descriptors = self._others_on(self._identities)
        os.lseek(self._first, POSITION, os.SEEK_SET)
        self._lock_shared(0, _SHARED_RANGE)
        self._lock_shared(2, _DEAD_MANS_SWITCH)

    def are_intact(self) -> bool:
        """Return whether no other code of this process has closed the descriptors, by one quick system call."""
        try:
            return self._tell() == POSITION
        except OSError:
            return False

    def are_at_hand(self, releases: bool) -> bool:
        """Return whether they are intact, and SQLite would not wait for a process that is stopped (see `LogIndex`).

        Args:
            releases: whether the caller gives slots back. Then the database must not have been deleted or replaced a
                moment ago, since the last look at it: they would stay taken in what has its place.
        """
        try:
            if self._tell() != POSITION:
                return False
            if releases and not self._status()[ST_NLINK]:
                self._seen_in_place = None  # so that the next look is one at the files
                return False
            changes, frames, copy, first, second, third, fourth = self.index.glance()
            return (changes == copy and frames not in (first, second, third, fourth)) or not self.index.is_held_up()
        except (OSError, ValueError):  # or a handler of a signal has forked at this moment, which closed the index
            return False

    def are_needed(self) -> bool:
        """Return whether a descriptor of this process that is no anchor is on the database: it would lose its locks.

        It is SQLite's own if a cursor of a closed connection lives on, or one of the program.
        """
        database = self._identities[0] if self._identities else identity_or_none(self._paths[0])
        return any(identity == database for _, identity in self._others_on({database}))

    @property
    def are_closed(self) -> bool:
        """Whether none of them is open."""
        return not self._descriptors

    @property
    def database_identity(self) -> Identity:
        return self._identities[0]

    @property
    def log_identity(self) -> Identity:
        return self._identities[1]

    def are_at(self, path: Path) -> bool:
        """Whether the open files are the ones at this path of a database."""
        return self._paths[0] == str(path) and self.are_in_place()

    def are_in_place(self) -> bool:
        """Whether the open files are the ones at their paths. They were, if the directory has not changed since.

        Every other hand-over asks this, and so does each waiter that polls, so it is one system call in place of three.
        Nothing but a change sets a directory's `ctime`, while whoever puts a backup back may also set its old `mtime`.
        """
        if len(self._identities) < len(self._paths):
            return False
        try:
            directory = os.stat(self._directory)
            state = (directory.st_dev, directory.st_ino, directory.st_ctime_ns)
            now = monotonic()
            if state == self._seen_in_place and now < self._look_at:
                return True
            for path, identity in zip(self._paths, self._identities, strict=True):
                found = os.stat(path)
                if (found.st_dev, found.st_ino) != identity:
                    return False
            if not self._status()[ST_NLINK]:
                self._status = _EXISTS  # it was deleted elsewhere, and is mounted here
        except OSError:
            return False
        is_fine = directory.st_ctime_ns % 1_000_000_000 != 0
        passed = wall() - directory.st_ctime
        if OPEN_FILES_CAN_MOVE and passed > (FINE_TIMES_SECONDS if is_fine else COARSE_TIMES_SECONDS):
            self._seen_in_place, self._look_at = state, now + LOOK_EVERY_SECONDS
        return True

    def are_unlinked(self) -> bool:
        """Whether one of the open files was deleted, and nothing of use has taken its place.

        A database that has a name elsewhere was not deleted: this process only can't see the path any more. What was
        replaced is not deleted either, be it by an older copy or by a log that another process has begun: what is at
        the path counts, for others go by it already. Nobody goes by a log that is empty.
        """
        if not OPEN_FILES_CAN_MOVE:
            return False
        database, log, index = [identity_or_none(path) for path in self._paths]
        if database is None:
            return os.fstat(self._first).st_nlink == 0
        if database != self.database_identity:
            return False
        if log != self.log_identity:
            return log is None or _is_empty(self._paths[1])
        return index is None

    def is_log_in_place(self) -> bool:
        """Whether the open log is the one at its path."""
        return is_same(self._paths[1], self._identities[1])

    # ---- letting go ------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Drop the locks, so that SQLite can remove the log when the last process closes its connection."""
        self._lock(0, _SHARED_RANGE, unlock=True)
        self._lock(2, _DEAD_MANS_SWITCH, unlock=True)

    def close(self) -> None:
        """Close the anchors. This drops SQLite's own locks, so every connection to the store was closed before."""
        self.index.close()
        self._close_descriptors()
        _open.discard(self)

    def _close_descriptors(self) -> None:
        identities = [*self._identities, *map(identity_or_none, self._paths[len(self._identities) :])]
        for descriptor, identity in zip(self._descriptors, identities, strict=False):
            if identity is not None:
                close_same(descriptor, identity)
        self._descriptors.clear()

    def close_lost(self, connection: sqlite3.Connection) -> None:
        """Close a connection after other code has closed its descriptors.

        SQLite closes its descriptors by their numbers, so this first opens the files again under the same numbers.

        Raises:
            StoreError: another file has taken one of the numbers over, so the connection is never closed.
        """
        self.index.stop_reading()
        self._close_descriptors()
        lost = [(number, identity) for number, identity in self._sqlite_descriptors if not is_same(number, identity)]
        if any(identity_or_none(number) is not None for number, _ in lost) or not self._sqlite_descriptors:
            make_immortal((connection, self))
            raise self._taken_over()
        paths = dict(zip(self._identities, self._paths, strict=True))
        for number, identity in lost:
            flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
            try:
                descriptor = os.open(paths[identity], flags)
            except OSError:
                make_immortal((connection, self))
                raise self._taken_over() from None
            if descriptor != number:
                os.dup2(descriptor, number, inheritable=False)
                os.close(descriptor)
        connection.close()
        self.close()

    def _taken_over(self) -> StoreError:
        return StoreError(
            f"The descriptors of the database {shown(self._paths[0])} were closed under this process (pid "
            f"{os.getpid()}), and its other files have taken their numbers: close only descriptors that are "
            "yours, or begin to use limits after that."
        )

    def _others_on(self, identities: Collection[Identity | None]) -> list[tuple[int, Identity]]:
        """Return the descriptors of this process on some files that are no anchors.

        A program may have ten thousand descriptors, so this makes one system call for each, and no more.
        """
        found = []
        anchored = {number for anchors in tuple(_open) for number in anchors._descriptors}
        try:
            names = os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")  # macOS, fdescfs(5)
        except OSError:
            return []
        for name in names:
            number = int(name)
            try:
                opened = os.fstat(number)
            except OSError:  # another thread has closed it, or it belonged to the listing
                continue
            identity = opened.st_dev, opened.st_ino
            if identity in identities and number not in anchored:
                found.append((number, identity))
        return found

    # ---- locks -----------------------------------------------------------------------------------------------

    def _lock_shared(self, index: int, place: tuple[int, int]) -> None:
        self._lock(index, place, unlock=False)

    def _lock(self, index: int, place: tuple[int, int], *, unlock: bool) -> None:
        if sys.platform == "linux" and len(self._descriptors) > index:  # no other has locks of an open file (fcntl(2))
            start, length = place
            kind = fcntl.F_UNLCK if unlock else fcntl.F_RDLCK
            flock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
            with suppress(OSError):  # a checkpoint holds it at this moment, or the file system has no such locks
                fcntl.fcntl(self._descriptors[index], fcntl.F_OFD_SETLK, flock)


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return True


def make_immortal(thing: object) -> None:
    """Keep an object from ever being finalized, even at the end of the process."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
