"""Releases in the background, which retries each one until the store allows it."""

from __future__ import annotations

import logging
import threading
from _thread import start_new_thread
from contextlib import suppress
from functools import partial
from itertools import compress, repeat
from operator import call
from threading import get_ident
from time import sleep
from typing import TYPE_CHECKING, Final

from localconc._locks import ENDLESSLY

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("localconc")

_MIN_PAUSE_SECONDS: Final = 0.001
_MAX_PAUSE_SECONDS: Final = 1.0

#: The limits asked for (None if unknown), and the ticket.
_Asked = tuple[tuple[int, ...] | None, int | None]


class _Arguments(tuple["BackgroundReleases", int]):
    """The arguments of a thread, which go with it: so they see it end, however it ends.

    Something may be thrown into it before its first instruction, by somebody who means a thread that has ended, and
    whose number it has.
    """

    def __del__(self) -> None:
        releases, creator = self
        if creator != get_ident() and releases.need_thread():  # it did start
            with suppress(RuntimeError):
                releases.start()


class BackgroundReleases:
    """Acquisitions to undo, and one thread while there are any.

    Args:
        undo: undoes one acquisition, or raises.
        lost: returns the serials of acquisitions that nobody will release, for as long as they are not undone.

    Attributes:
        start: starts the thread without waiting for it, so an exception that strikes the caller meanwhile is not lost.
            All of it is C, unless it raises RuntimeError, because the system starts no thread.
    """

    def __init__(
        self, undo: Callable[[int, tuple[int, ...] | None, int | None], None], lost: Callable[[], list[int]]
    ) -> None:
        self._undo = undo
        self._lost = lost
        self._pending: dict[int, _Asked] = {}  # by serial, the oldest first
        self._is_running = threading.Lock()
        arguments = map(_Arguments, zip(repeat(self), map(call, repeat(get_ident)), strict=False))  # each `next`: new
        self.start: Callable[[], object] = partial(
            next, map(start_new_thread, repeat(BackgroundReleases._run), arguments)
        )

    def add(self, serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        """Release an acquisition in the background."""
        self._pending.setdefault(serial, (limit_ids, ticket))
        if self.need_thread():
            with suppress(RuntimeError):  # the system starts no thread now: the next call of `add` tries again
                self.start()

    def need_thread(self) -> bool:
        """Return whether there is anything to undo, and no thread that is at it."""
        return self._has_work() and not self._is_running.locked()

    def _has_work(self) -> bool:
        return bool(self._pending or self._lost())

    def pending(self) -> list[tuple[int, tuple[int, ...] | None, int | None]]:
        """Return the acquisitions that are still to be undone, with their limits and tickets."""
        return [(serial, *asked) for serial, asked in list(self._pending.items())]

    def has(self, serial: int) -> bool:
        """Return whether an acquisition is still to be undone."""
        return serial in self._pending

    def serials(self) -> set[int]:
        """Return the serials of the acquisitions that are still to be undone."""
        return {serial for serial, *_ in self.pending()}

    def clear(self) -> None:
        """Forget all of them, in a forked child or at the end of the process."""
        self._pending.clear()

    def _run(self, _creator: int) -> None:
        # Only one thread works. It looks again after it has let go of the lock, so that nothing is left behind.
        for _ in ENDLESSLY:
            if not self.need_thread() or not self._undo_all_alone():
                break

    def _undo_all_alone(self) -> bool:
        """Undo all, unless another thread is at it; return whether this one did."""
        acquire = partial(self._is_running.acquire, blocking=False)
        taken: list[bool] = []
        try:
            taken.extend(compress((True,), map(call, (acquire,))))  # in one step, as in `InterruptibleLock`
            if taken:
                self._undo_all()
        finally:
            if taken:
                self._is_running.release()
        return bool(taken)

    def _undo_all(self) -> None:
        pause_seconds = _MIN_PAUSE_SECONDS
        while self._has_work():
            for serial in self._lost():
                self._pending.setdefault(serial, (None, None))
            for serial, limit_ids, ticket in self.pending():
                try:
                    self._undo(serial, limit_ids, ticket)
                except Exception:  # whatever the reason is: no other thread retries
                    sleep(pause_seconds)
                    pause_seconds = min(_MAX_PAUSE_SECONDS, pause_seconds * 2)
                else:
                    self._pending.pop(serial, None)
                    pause_seconds = _MIN_PAUSE_SECONDS


def report_late_release(error: Exception) -> None:
    """Say that slots could not be released yet."""
    logger.warning(
        "localconc: could not release slots (%s); retrying in the background.",
        str(error) or "another process holds the database",
    )
