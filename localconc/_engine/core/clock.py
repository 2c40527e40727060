"""The clock, which tests replace to move time by hand.

Programs under test may also fake the standard library's time: freezegun exchanges the functions of the module `time` in
every module that imported them, and time-machine changes what they return. The engine needs the real time all the same,
because other processes use it. So it keeps these functions inside other objects, where neither library finds them.
"""

from __future__ import annotations

import os
import sys
import time
from functools import cache, partial
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable


class Mailbox(Protocol):
    """Where a waiting thread or an event loop receives wakeups."""

    @property
    def address(self) -> str:
        """The mailbox's name in the waiter's row."""

    @property
    def is_reachable(self) -> bool:
        """Whether other processes can send to it; if not, its waiter polls more often."""

    def wait(self, seconds: float | None, watched_fd: int | None) -> None:
        """Sleep until a wakeup comes, the watched descriptor is readable, or the time has passed."""

    def take(self) -> list[tuple[int, int, float, float]]:
        """Return the wakeups received since the last time."""


class InPassing(float):
    """A moment that ends a pause, but to which a test's clock never jumps: a report is due then, and no admission."""


class Clock(Protocol):
    """A time that all processes of the machine agree on, and pauses that follow it."""

    def now(self) -> float:
        """Return the seconds since the machine started, with suspended time; jumps of the wall clock don't move it."""

    def wall(self) -> float:
        """Return the seconds since 1970 (UTC), which people read, and by which decay continues after a reboot."""

    def boot_identity(self) -> str:
        """Return a text that differs after every reboot; "" if the system tells none.

        A container may have one of its own on the same boot.
        """

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        """Block this thread until the moment, a wakeup in the mailbox, or an event on the watched descriptor."""

    async def pause_task(self, event: Any, until: float | None) -> None:
        """Suspend this task until the moment, or until another task sets the event (`set`, `wait`).

        The event may be set afterwards.
        """


# ---- where the time comes from ---------------------------------------------------------------------------------------

#: CLOCK_BOOTTIME counts suspended time on Linux; CLOCK_MONOTONIC does on macOS. On Windows, `time.perf_counter` does
#: (QueryPerformanceCounter); `time.monotonic` is another clock before Python 3.13, which moves in steps of 16 ms.
_SOURCES: Final = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}

_OFFSETS_PATH: Final = "/proc/self/timens_offsets"


#: Where Windows counts its starts.
_BOOTS_OF_WINDOWS: Final = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"


def _boot_identity() -> str:
    """Return what the system tells of this boot.

    Raises:
        OSError, ValueError, AttributeError: it tells nothing.
    """
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _BOOTS_OF_WINDOWS) as key:
            return f"boot {winreg.QueryValueEx(key, 'BootId')[0]}"
    if sys.platform == "darwin":
        import ctypes

        # kern.boottime would not do: it moves with the wall clock.
        text, length = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
        library = ctypes.CDLL(None, use_errno=True)
        if library.sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(length), None, ctypes.c_size_t(0)) != 0:
            raise OSError(ctypes.get_errno(), "sysctlbyname")
        return text.value.decode("ascii")
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


class _RealTime:
    """The number of the wall clock for `clock_gettime`; time-machine moves that clock for plain numbers only."""

    __index__ = getattr(time, "CLOCK_REALTIME", 0).conjugate  # a C function that returns the number itself


def boot_offset_seconds() -> float:
    """Return how far the boot clock of this time namespace is ahead of the machine's, which all processes share."""
    try:
        if os.readlink("/proc/self/ns/time") != os.readlink("/proc/self/ns/time_for_children"):
            return 0.0  # the table describes the namespace of the children, not the one of this process
        with open(_OFFSETS_PATH, encoding="utf-8") as file:
            lines = [line.split() for line in file]
        return next((int(line[1]) + int(line[2]) / 1e9 for line in lines if line[0] in ("boottime", "7")), 0.0)
    except (OSError, ValueError, IndexError):
        return 0.0  # no such namespaces here


def _time_since_boot() -> Callable[[], float]:
    if sys.platform == "win32":
        return _hidden(time.perf_counter)
    source = getattr(time, _SOURCES.get(sys.platform, ""), None)
    if source is None:
        return _hidden(time.monotonic)
    read = partial(time.clock_gettime, source)
    offset = boot_offset_seconds()
    return (lambda: read() - offset) if offset else read


def _wall_time() -> Callable[[], float]:
    if sys.platform == "win32":
        return _hidden(time.time)
    clock: Any = _RealTime()
    return partial(time.clock_gettime, clock)


def _hidden(function: Callable[[], float]) -> Callable[[], float]:
    """Wrap a function, so that freezegun does not find it."""
    return partial(function)


def _monotonic_time() -> Callable[[], float]:
    if sys.platform == "win32":
        return _hidden(time.perf_counter)
    return partial(time.clock_gettime, getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC))  # as `time.monotonic`


#: The wall clock of the machine, even if a test fakes the time.
wall: Callable[[], float] = _wall_time()

#: A clock for spans inside this process, which runs even if a test fakes the time.
monotonic: Callable[[], float] = _monotonic_time()


class SystemClock:
    """The machine's own time."""

    now: Callable[[], float] = staticmethod(_time_since_boot())
    wall: Callable[[], float] = staticmethod(wall)

    @cache  # noqa: B019 (it keeps clocks alive, which have no state)
    def boot_identity(self) -> str:
        try:
            return _boot_identity()
        except (OSError, ValueError, AttributeError):
            return ""

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        mailbox.wait(None if until is None else until - self.now(), watched_fd)

    async def pause_task(self, event: Any, until: float | None) -> None:
        if until is None:
            await event.wait()
            return
        from asyncio import get_running_loop

        alarm = call_later(get_running_loop(), until - self.now(), event.set)
        try:
            await event.wait()
        finally:
            alarm.cancel()


# ---- timers of event loops -------------------------------------------------------------------------------------------


class Timer(Protocol):
    """A call that an event loop will make."""

    def cancel(self) -> None:
        """Do not make the call. Only the loop's thread may cancel."""


def call_later(loop: AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> Timer:
    """Let an event loop call a function after some real seconds.

    If a test has frozen the time, the timers of an asyncio loop never become due, so a thread sleeps instead.
    """
    seconds = max(0.0, seconds)
    if _is_frozen():
        return _ThreadTimer(loop, seconds, callback)
    return loop.call_later(seconds, callback)


def _is_frozen() -> bool:
    """Return whether a test has frozen the clock of the event loops; time-machine did before its version 3."""
    if not isinstance(time.monotonic, BuiltinFunctionType):
        return True
    return bool(sys.platform != "win32" and abs(time.monotonic() - monotonic()) > 1.0)


class _ThreadTimer:
    """A timer that sleeps in a thread of its own."""

    def __init__(self, loop: AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> None:
        from _thread import allocate_lock, start_new_thread

        self._loop = loop
        self._callback: Callable[[], object] | None = callback
        self._cancelled = allocate_lock()
        self._cancelled.acquire()
        start_new_thread(self._sleep, (seconds,))

    def _sleep(self, seconds: float) -> None:
        from contextlib import suppress

        if not self._cancelled.acquire(timeout=seconds):
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._call)

    def _call(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None
            self._cancelled.release()
