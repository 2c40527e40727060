"""What Windows tells about a process.

There, `os.kill(pid, 0)` is no question: 0 is CTRL_C_EVENT, and any other number ends the process (Python's `os.kill`).
"""

from __future__ import annotations

import sys
from typing import Any, Final

assert sys.platform == "win32"  # for the type checker, which skips the rest elsewhere

import ctypes  # noqa: E402
from ctypes import wintypes  # noqa: E402

_SYNCHRONIZE: Final = 0x0010_0000
_QUERY_LIMITED_INFORMATION: Final = 0x1000
_ACCESS_DENIED: Final = 5
_SIGNALLED: Final = 0

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.OpenProcess.restype = wintypes.HANDLE
_kernel32.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
_kernel32.WaitForSingleObject.argtypes = [wintypes.HANDLE, wintypes.DWORD]
_kernel32.CloseHandle.argtypes = [wintypes.HANDLE]
_kernel32.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]


def has_exited(pid: int) -> bool:
    """Return whether no process runs under a pid."""
    handle = _open(pid)
    if not handle:
        return ctypes.get_last_error() != _ACCESS_DENIED
    try:
        return bool(_kernel32.WaitForSingleObject(handle, 0) == _SIGNALLED)
    finally:
        _kernel32.CloseHandle(handle)


def started(pid: int) -> str:
    """Return when a process started; "" if it can't be told."""
    handle = _open(pid)
    if not handle:
        return ""
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        if not _kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)):
            return ""
        return str(times[0].dwHighDateTime << 32 | times[0].dwLowDateTime)
    finally:
        _kernel32.CloseHandle(handle)


def _open(pid: int) -> Any:
    return _kernel32.OpenProcess(_SYNCHRONIZE | _QUERY_LIMITED_INFORMATION, False, pid)
