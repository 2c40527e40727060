"""What macOS tells about a process, by libproc: there is no /proc."""

from __future__ import annotations

import ctypes
import struct
from typing import Final

#: With this flavour, `proc_pidinfo` fills a `struct proc_bsdinfo` (sys/proc_info.h); its argument 1 includes zombies.
_PROC_PIDTBSDINFO: Final = 3
_INFO_BYTES: Final = 136
_STATUS_AT: Final = 4  # pbi_status
_START_AT: Final = 120  # pbi_start_tvsec, pbi_start_tvusec

#: States of a process (sys/proc.h), as the letters that Linux has for them.
_LETTERS: Final = {1: "I", 2: "R", 3: "S", 4: "T", 5: "Z"}


def started(pid: int) -> str:
    """Return when a process started; "" if it can't be told."""
    return started_in(_info(pid))


def state(pid: int) -> str:
    """Return the letter of a process's state, such as T if it is stopped; "" if it can't be told."""
    return state_in(_info(pid))


def started_in(info: bytes) -> str:
    """Return when the process that is described started, in microseconds; "" without a description."""
    if not info:
        return ""
    seconds, microseconds = struct.unpack_from("=QQ", info, _START_AT)
    return str(seconds * 1_000_000 + microseconds)


def state_in(info: bytes) -> str:
    """Return the letter of the state of the process that is described; "" without a description."""
    return _LETTERS.get(struct.unpack_from("=I", info, _STATUS_AT)[0], "") if info else ""


def _info(pid: int) -> bytes:
    """Return the kernel's description of a process; empty if it has gone, or may not be looked at."""
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    try:
        library = ctypes.CDLL(None, use_errno=True)  # libSystem has libproc
        filled = library.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(1), buffer, _INFO_BYTES)
    except (OSError, AttributeError):
        return b""
    return buffer.raw if filled == _INFO_BYTES else b""
