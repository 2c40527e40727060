"""What time it is, and how a thread or task pauses: the one thing that tests replace to move time by hand."""

from __future__ import annotations

import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from localconc._engine.wakeup import Mailbox


class Clock(Protocol):
    """A time that all processes of the machine agree on, and pauses that follow it."""

    def now(self) -> float:
        """Seconds since the machine started, suspended time included; no jump of the wall clock moves it."""

    def wall(self) -> float:
        """Seconds since 1970 (UTC): for people to read, and to carry decay over a reboot."""

    def boot_identity(self) -> str:
        """A text that differs after every reboot; empty where the system tells none."""

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        """Block this thread until the moment, a signal to the mailbox, or an event on the watched descriptor."""

    async def pause_task(self, arrival: Any, until: float | None) -> None:
        """Suspend this task until the moment or until the arrival (`set`, `wait`) is set; it may come back set."""


# CLOCK_BOOTTIME counts suspended time on Linux; CLOCK_MONOTONIC does on macOS; time.monotonic does on Windows.
_SOURCES = {"linux": "CLOCK_BOOTTIME", "darwin": "CLOCK_MONOTONIC"}


def _time_since_boot() -> Callable[[], float]:
    source = getattr(time, _SOURCES.get(sys.platform, ""), None)
    if source is None:
        return time.monotonic
    return partial(time.clock_gettime, source)


class SystemClock:
    """The machine's own time."""

    now: Callable[[], float] = staticmethod(_time_since_boot())
    wall: Callable[[], float] = staticmethod(time.time)

    @cache  # noqa: B019 (what it keeps alive has no state)
    def boot_identity(self) -> str:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return ""  # a clock that went backwards tells of the reboot then

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        mailbox.wait(None if until is None else until - self.now(), watched_fd)

    async def pause_task(self, arrival: Any, until: float | None) -> None:
        if until is None:
            await arrival.wait()
            return
        from asyncio import get_running_loop

        alarm = get_running_loop().call_later(max(0.0, until - self.now()), arrival.set)
        try:
            await arrival.wait()
        finally:
            alarm.cancel()
