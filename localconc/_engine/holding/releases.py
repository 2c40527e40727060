"""Releases in the background, which retries each one until the store allows it."""

from __future__ import annotations

import logging
import threading
from _thread import start_new_thread
from collections import deque
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("localconc")

_MIN_PAUSE_SECONDS: Final = 0.001
_MAX_PAUSE_SECONDS: Final = 1.0

#: Serial, the limits asked for (None if unknown), and the ticket.
_Pending = tuple[int, tuple[int, ...] | None, int | None]


class BackgroundReleases:
    """A queue of acquisitions to undo, and a thread while there are any.

    A caller starts the thread without waiting for it, so an exception that strikes the caller meanwhile is not lost.

    Args:
        undo: undoes one acquisition, or raises.
    """

    def __init__(self, undo: Callable[[int, tuple[int, ...] | None, int | None], None]) -> None:
        self._undo = undo
        self._pending: deque[_Pending] = deque()
        self._is_running = threading.Lock()

    def add(self, serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        """Release an acquisition in the background."""
        self._pending.append((serial, limit_ids, ticket))
        with suppress(RuntimeError):  # the system starts no thread now: the next call of `add` tries again
            start_new_thread(self._run, ())

    def pending(self) -> list[_Pending]:
        """Return the acquisitions that are still to be undone, with their limits and tickets."""
        return list(self._pending)

    def serials(self) -> set[int]:
        """Return the serials of the acquisitions that are still to be undone."""
        return {serial for serial, _, _ in list(self._pending)}

    def clear(self) -> None:
        """Forget all of them, in a forked child or at the end of the process."""
        self._pending.clear()

    def _run(self) -> None:
        # Only one thread works. Another one waits until it ends, and then looks again, so that nothing is left behind.
        if len(self._pending) == 0:
            return
        with self._is_running:
            pause_seconds = _MIN_PAUSE_SECONDS
            while True:
                try:
                    pending = self._pending[0]
                except IndexError:
                    return
                try:
                    self._undo(*pending)
                except Exception:  # whatever the reason is: no other thread retries
                    self._pending.rotate(-1)
                    sleep(pause_seconds)
                    pause_seconds = min(_MAX_PAUSE_SECONDS, pause_seconds * 2)
                    continue
                with suppress(ValueError):
                    self._pending.remove(pending)
                pause_seconds = _MIN_PAUSE_SECONDS


def report_late_release(error: Exception) -> None:
    """Say that slots could not be released yet."""
    logger.warning(
        "localconc: could not release slots (%s); retrying in the background.",
        str(error) or "another process holds the database",
    )
