"""Where a waiter receives wakeups, with a slow poll behind it.

A wakeup is a hint to look at the store. Any process may send one, any may be lost, nothing depends on it. One that
tells of a grant saves the look: it is sent after the commit and carries the secret of the waiter's row, which only
those who can read the store know, so it proves what the store says.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from localconc._engine.waiting.timing import SLOW_POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAKEUP_BYTES: Final = 128

#: What a waiter is told: the serial of its acquisition and, if it was granted its slots, the secret of its row with the
#: moments of the grant, by the wall clock and by the boot clock. A secret of 0 tells it to look; a serial of 0 tells
#: every waiter of the mailbox so.
Wakeup = tuple[int, int, float, float]


def to_bytes(wakeup: Wakeup) -> bytes:
    """Return a wakeup as a datagram."""
    serial, secret, wall, boot = wakeup
    return f"{serial} {secret} {wall!r} {boot!r}".encode() if secret else b"%d" % serial


def from_bytes(datagram: bytes) -> Wakeup | None:
    """Return the wakeup in a datagram, or None for what somebody else made up."""
    words = datagram.split()
    try:
        if len(words) == 1:
            return int(words[0]), 0, 0.0, 0.0
        serial, secret, wall, boot = words
        return int(serial), int(secret), float(wall), float(boot)
    except ValueError:
        return None


class Mailbox:
    """Where one waiting thread, or one event loop, receives wakeups; this kind only from its own process.

    Attributes:
        name: what its process calls it.
        on_delivery: what a sender of this process calls, in its own thread, after it has left a wakeup: for an event
            loop, which waits for the mailbox in a way of its own.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.on_delivery: Callable[[], object] | None = None
        self._received: deque[Wakeup] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def address(self) -> str:
        """Its name in the waiter's row; wakeups can come from now on."""
        return self.name

    @property
    def is_reachable(self) -> bool:
        """Whether other processes can send to it; else its waiter has to look more often."""
        return False

    @property
    def is_reusable(self) -> bool:
        """Whether it is worth keeping for the next waiter."""
        return False

    @property
    def has_wakeups(self) -> bool:
        """Whether a sender of this process has left wakeups that nobody has taken yet."""
        return bool(self._received)

    @property
    def descriptor(self) -> int | None:
        """What an event loop may watch; None if there is nothing to watch."""
        return None

    def wait(self, seconds: float | None, watched_fd: int | None) -> None:
        """Sleep until a wakeup comes, the watched descriptor is readable (if sockets work), or the time has passed."""
        if not self._received:
            self._bell.acquire(timeout=max(0.0, SLOW_POLL_SECONDS if seconds is None else min(seconds, 1e6)))

    def deliver(self, wakeup: Wakeup) -> None:
        """Leave a wakeup, from any thread of this process."""
        self._received.append(wakeup)
        on_delivery = self.on_delivery
        if on_delivery is not None:
            on_delivery()
        else:
            self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # it has rung already
            self._bell.release()

    def drain(self) -> None:
        """Receive all wakeups that have come by the descriptor."""

    def take(self) -> list[Wakeup]:
        """Return the wakeups received since the last time, for whatever serials."""
        received = self._received
        taken = []
        while received:  # a sender may add one at any moment, so the queue is never exchanged
            taken.append(received.popleft())
        return taken

    def close(self) -> None:
        """Stop receiving."""

    def close_in_child(self) -> None:
        """Stop receiving in a forked child; the mailbox goes on to be the parent's."""
