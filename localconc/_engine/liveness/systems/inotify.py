"""Linux's inotify, as far as the watch needs it: which file has lost the last descriptor that could write to it."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

from localconc._engine.homes.files import close_same, identity_of

assert sys.platform == "linux"  # for the type checker, which skips the rest elsewhere

_CLOSE_WRITE: Final = 0x8
_IGNORED: Final = 0x8000
_DONT_FOLLOW: Final = 0x0200_0000

_EVENT: Final = struct.Struct("iIII")  # number of the watch, what happened, cookie, length of the name behind it
_BUFFER_BYTES: Final = 65_536

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_libc.inotify_rm_watch.argtypes = [ctypes.c_int, ctypes.c_int]


class Inotify:
    """One inotify instance.

    Raises:
        OSError: the user has too many of them, or no descriptors are left.
    """

    def __init__(self) -> None:
        self.descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._identity = identity_of(self.descriptor)

    def add(self, path: Path) -> int:
        """Watch a file, without following a symbolic link; return the number of the watch.

        Raises:
            OSError: there is no such file, or too many are watched.
        """
        mask = _CLOSE_WRITE | _DONT_FOLLOW
        return _checked(_libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask), path)

    def remove(self, number: int) -> None:
        """Stop watching a file."""
        _libc.inotify_rm_watch(self.descriptor, number)  # fails only for a deleted file or a closed instance

    def read(self) -> list[tuple[int, bool]]:
        """Return the numbers of watches that have news, each with whether the watch has ended with its file.

        Raises:
            OSError: other code has closed the descriptor.
        """
        happened = []
        try:
            data = os.read(self.descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return []
        offset = 0
        while offset + _EVENT.size <= len(data):
            number, mask, _, name_length = _EVENT.unpack_from(data, offset)
            happened.append((number, bool(mask & _IGNORED)))
            offset += _EVENT.size + name_length
        return happened

    def close(self) -> None:
        """Close the descriptor; in a forked child, this leaves the parent's watches as they are."""
        close_same(self.descriptor, self._identity)


def _checked(result: int, path: Path | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result
