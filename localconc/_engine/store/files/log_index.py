"""The index of the log (`-shm`), which tells how long the log is, or that SQLite would wait for a stopped process.

SQLite documents its form («WAL-index format» in its walformat.html).
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from localconc._engine.homes.files import read_at

if sys.platform != "win32":
    import fcntl

    _SYSTEM: Final = os.uname().sysname

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The words at its beginning: the counter of changes, in both copies of the header; how many pages the log holds, and
#: how many of them are in the database; the marks up to which readers read.
WORDS: Final = 34
CHANGES, CHANGES_COPY, FRAMES, BROUGHT_IN, MARKS = 2, 14, 4, 24, range(26, 30)
_BYTES: Final = 4 * WORDS
_HEADER_BYTES: Final = 48

#: Picks the words `CHANGES`, `FRAMES`, `CHANGES_COPY` and `MARKS`.
_GLANCE: Final = struct.Struct("8xI4xI36xI44x4I")

#: The bytes that SQLite locks for the writer, and to set each of the marks.
WRITER_LOCK: Final = 120
MARK_LOCKS: Final = range(124, 128)
_MARKS_FROM_THE_LAST: Final = tuple(zip(reversed(MARKS), reversed(MARK_LOCKS), strict=True))

#: Stands for an index that can't be mapped: nobody is held up by it.
_NOTHING: Final = memoryview(struct.pack(f"{WORDS}I", *(int(word == FRAMES) for word in range(WORDS)))).cast("I")
_glance_at_nothing: Final = partial(_GLANCE.unpack_from, _NOTHING.tobytes())


class LogIndex:
    """The index of the log of an open store.

    Args:
        path: of the index.

    Attributes:
        words: those at its beginning, as they are at each moment.
        glance: one quick call that shows whether another process may be changing the index. It returns the counter of
            changes, the number of pages, the copy of the counter, and the four marks. No process does, if the counters
            are equal, and the number is none of the marks. Raises ValueError if the map is closed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._maps: list[mmap.mmap] = []  # at most one
        self.words = _NOTHING
        self.glance: Callable[[], tuple[Any, ...]] = _glance_at_nothing

    def map(self, descriptor: int) -> None:
        """Map the index, to read it without system calls.

        The map has a descriptor of its own, and whoever closes that drops SQLite's locks on the file. So it must not be
        lost: all is C here between the map and the list that keeps it.

        Args:
            descriptor: on the index, for as long as this is open.
        """
        self._descriptor = descriptor
        if sys.platform != "win32":
            with suppress(OSError, ValueError):  # it is too short, or the file system maps no files
                if not self._maps:
                    self._maps.extend(map(mmap.mmap, (descriptor,), (_BYTES,), (mmap.MAP_SHARED,), (mmap.PROT_READ,)))
                self.words = memoryview(self._maps[0]).cast("I")
                self.glance = partial(_GLANCE.unpack_from, self._maps[0])

    def frames(self) -> tuple[int, int]:
        """Return how many pages the log holds, and how many of them are in the database already."""
        words: Sequence[int] = self.words
        if not self._maps:
            with suppress(OSError):
                words = _words_in(self._read())
        return words[FRAMES], words[BROUGHT_IN]

    def state(self) -> bytes | None:
        """Return bytes that differ after every commit, by whichever process; None if that takes a look at the store.

        They are the header, with the counter of changes and the checksum of the last page.
        """
        maps = self._maps
        try:
            return maps[0][:_HEADER_BYTES] if maps else self._read()[:_HEADER_BYTES]
        except (OSError, ValueError, IndexError):  # another thread closes it at this moment
            return None

    def _read(self) -> bytes:
        if self._descriptor is not None:
            return read_at(self._descriptor, _BYTES, 0)
        with open(self._path, "rb") as index:  # on Windows, closing a file drops no locks of other descriptors
            return index.read(_BYTES)

    def is_held_up(self) -> bool:
        """Return whether SQLite would wait for another process, up to ten seconds, before it says that it is busy.

        It does so (walTryBeginRead in its wal.c) while another process changes the index: between the two copies of the
        header, or while that process sets the mark that this one would use. It mostly takes less than a microsecond,
        but a process can be stopped there. Ask only if a glance can't rule it out.
        """
        descriptor, words = self._descriptor, self.words
        if descriptor is None:
            return False
        if words[CHANGES] != words[CHANGES_COPY]:
            return _is_locked(descriptor, WRITER_LOCK)  # if nobody has it, the writer is dead; SQLite mends the header
        for mark, lock in _MARKS_FROM_THE_LAST:  # of equal marks, SQLite uses the last one
            if words[mark] == words[FRAMES]:
                return _is_locked(descriptor, lock)
        return False

    def stop_reading(self) -> None:
        """Read the map no more, which `close` closes."""
        if self.words is not _NOTHING:
            self.words.release()
            self.words, self.glance = _NOTHING, _glance_at_nothing

    def close(self) -> None:
        """Close the map. This drops SQLite's own locks on the index, so the connection has to be closed before."""
        self.stop_reading()
        for each in self._maps:
            each.close()
        self._maps.clear()


def _words_in(index: bytes) -> Sequence[int]:
    return memoryview(index).cast("I") if len(index) == _BYTES else _NOTHING


def _is_locked(descriptor: int, byte: int) -> bool:
    """Return whether another process has an exclusive lock on a byte."""
    if sys.platform != "win32":
        try:
            if _SYSTEM == "Linux":  # fcntl.h of each says how `struct flock` lies in memory
                question = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                answer = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
                return bool(answer[0] == fcntl.F_WRLCK)
            if _SYSTEM == "Darwin":
                question = struct.pack("qqihh", byte, 1, 0, fcntl.F_RDLCK, os.SEEK_SET)
                answer = struct.unpack("qqihh", fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
                return bool(answer[3] == fcntl.F_WRLCK)
        except OSError:
            return False
    return False
