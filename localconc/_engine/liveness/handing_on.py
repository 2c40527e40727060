"""Whether the lock of an owner's file may outlive its process: only where it was handed on to a command.

`localconc run` lets its command inherit the lock, so that the slots stay held in the moment before the store knows the
command, even if `localconc run` is killed then. Any other process that has the lock after its owner is gone is a child
that C code forked, which does not know of it: it must not keep its parent's slots.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from localconc._engine.homes.files import open_to_read, read_at, write_at

if TYPE_CHECKING:
    from pathlib import Path

#: Where the owner's file tells it, behind its pid: one byte.
_AT: Final = 31
_HANDED_ON: Final = b"h"


def hand_on(descriptor: int) -> None:
    """Write down that a command is about to inherit the lock of the owner's file that is open here.

    It is never taken back: a command that could not be started ends the only process that calls this.
    """
    write_at(descriptor, _HANDED_ON, _AT)


def is_handed_on(path: Path) -> bool:
    """Return whether a command may have inherited the lock of an owner's file; if nobody can tell, it may."""
    try:
        descriptor = open_to_read(path)
    except OSError:
        return True
    try:
        return read_at(descriptor, 1, _AT) != b"\0"
    except OSError:
        return True
    finally:
        os.close(descriptor)
