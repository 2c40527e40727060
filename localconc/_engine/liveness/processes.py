"""What the operating system tells about a process: whether it has ended, whether it is stopped, its command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

from localconc._engine.core.arguments import printable
from localconc._engine.core.clock import boot_offset_seconds

MAX_COMMAND_LENGTH: Final = 200

_LARGEST_PID: Final = 2**31 - 1

#: Letters of /proc/<pid>/stat for a process that a signal or a debugger has stopped.
_STOPPED: Final = ("T", "t")
_ENDED: Final = ("Z", "X", "x")

# Answers that hold for one process only, with its pid: a fork that Python does not notice copies them.
_pid_namespace: tuple[int, str] = (0, "")
_sees_own_table: tuple[int, bool] = (0, False)


def pid_namespace() -> str:
    """Return the pid namespace of this process (containers have their own); "" if the system has none, or hides it."""
    global _pid_namespace
    pid = os.getpid()
    if _pid_namespace[0] != pid:
        try:
            _pid_namespace = pid, os.readlink("/proc/self/ns/pid")
        except OSError:
            _pid_namespace = pid, ""
    return _pid_namespace[1]


def is_own_table(namespace: str) -> bool:
    """Return whether the pids of a pid namespace are those of this process's table.

    On Linux, processes that do not know their namespaces (a jail has no /proc) may be in two different ones. Other
    systems have one table for all processes.
    """
    own = pid_namespace()
    return namespace == own and (own != "" or sys.platform != "linux")


def has_exited(pid: int) -> bool:
    """Return whether no process of this pid namespace runs under a pid. A zombie has exited, too.

    Another process may have got the pid since: compare `started`.
    """
    if type(pid) is not int or not 0 < pid <= _LARGEST_PID:  # localconc did not write this row
        return True
    if sys.platform == "win32":
        from localconc._engine.liveness.systems import windows

        return windows.has_exited(pid)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # out of descriptors, forbidden, the number of a thread, an old kernel
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return True
            return _is_readable_and_close(descriptor)
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # any other error: it belongs to another user
    return _state(pid) in _ENDED


def _is_readable_and_close(descriptor: int) -> bool:
    if sys.platform == "win32":
        raise OSError("only Linux has descriptors of processes")
    import select

    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)


def started(pid: int) -> str:
    """Return when a process of this pid namespace started, by the kernel's count; "" if it has ended, or unknown.

    Two processes of the same pid differ in it. It is the same for all who look, whatever time namespace they are in.
    """
    if sys.platform == "win32":
        from localconc._engine.liveness.systems import windows

        return windows.started(pid)
    if sys.platform == "darwin":
        from localconc._engine.liveness.systems import macos

        return macos.started(pid)
    ticks = _stat_field(pid, 19)
    offset = boot_offset_seconds() if ticks.isdecimal() else 0.0
    return str(int(ticks) - round(offset * os.sysconf("SC_CLK_TCK"))) if offset else ticks


def is_stopped(pid: int) -> bool | None:
    """Return whether a process of this pid namespace is stopped (SIGSTOP, Ctrl-Z, a debugger); None if unknown."""
    state = _state(pid)
    return state in _STOPPED if state else None


def _state(pid: int) -> str:
    if sys.platform == "darwin":
        from localconc._engine.liveness.systems import macos

        return macos.state(pid)
    return _stat_field(pid, 0)


def _stat_field(pid: int, index: int) -> str:
    """Return a field behind the command in /proc/<pid>/stat; "" if there is none."""
    if sys.platform != "linux" or not _sees_its_own_table():
        return ""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].split()[index].decode("ascii", "replace")
    except (OSError, IndexError):
        return ""


def _sees_its_own_table() -> bool:
    """Return whether /proc shows the pid namespace of this process; after `unshare --pid` it may show another."""
    global _sees_own_table
    pid = os.getpid()
    if _sees_own_table[0] != pid:
        try:
            _sees_own_table = pid, os.readlink("/proc/self") == str(pid)
        except OSError:
            _sees_own_table = pid, False
    return _sees_own_table[1]


def command() -> str:
    """Return the command line of this process, for people to read."""
    text = " ".join(sys.orig_argv)
    with suppress(OSError), open("/proc/self/cmdline", "rb") as file:
        text = os.fsdecode(b" ".join(file.read().rstrip(b"\0").split(b"\0")))
    return printable(text)[:MAX_COMMAND_LENGTH]
