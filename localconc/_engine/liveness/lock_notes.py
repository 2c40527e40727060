"""What an owner's file says of the lock on it, so that other processes can tell whether the owner lives.

Handed on: `localconc run` lets its command inherit the lock, so that the slots stay held in the moment before the store
knows the command, even if `localconc run` is killed then. Any other process that has the lock after its owner is gone
is a child that C code forked. The child does not know of the lock, and must not keep its parent's slots.

A copy: a backup of the home that is put back has copies of these files, which no process has locked though the owners
live. So a file has its own inode in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from localconc._engine.homes.files import open_to_read, read_at, write_at

if TYPE_CHECKING:
    from pathlib import Path

#: Where the file tells these, behind its pid.
_INODE_AT: Final = 16
_INODE_BYTES: Final = 8
_HANDED_ON_AT: Final = 31
_HANDED_ON: Final = b"h"


def note_original(descriptor: int) -> None:
    """Write down that the open file is no copy."""
    write_at(descriptor, os.fstat(descriptor).st_ino.to_bytes(_INODE_BYTES, "little"), _INODE_AT)


def hand_on(descriptor: int) -> None:
    """Write down that a command is about to inherit the lock of the open file.

    It is never taken back: a command that could not be started ends the only process that calls this.
    """
    write_at(descriptor, _HANDED_ON, _HANDED_ON_AT)


def is_copy(path: Path) -> bool:
    """Return whether a file is a copy of an owner's; False if that is unknown."""
    noted, inode, _ = _read(path)
    return noted not in (0, inode)


def is_handed_on(path: Path) -> bool:
    """Return whether a command may have inherited the lock of a file; True if that is unknown."""
    return _read(path)[2] != b"\0"


def _read(path: Path) -> tuple[int, int, bytes]:
    """Return the noted inode, the real one, and the mark of a lock that was handed on."""
    try:
        descriptor = open_to_read(path)
    except OSError:
        return 0, 0, b""
    try:
        noted = read_at(descriptor, _INODE_BYTES, _INODE_AT)
        inode = os.fstat(descriptor).st_ino
        return int.from_bytes(noted, "little"), inode, read_at(descriptor, 1, _HANDED_ON_AT)
    except OSError:
        return 0, 0, b""
    finally:
        os.close(descriptor)
