"""The mailbox in which a waiter receives wakeups.

A wakeup is a hint to look at the store. Any process may send one, and any may be lost, because the waiter also polls.
The wakeup of a grant saves the waiter the look: the granting process sends it after the commit, with the secret of the
waiter's row, which proves that the sender can read the store.
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

#: The serial of the waiter's acquisition and, for a grant, the secret of its row with the moments of the grant, by the
#: wall clock and by the boot clock. With a secret of 0, the waiter is to look at the store; with a serial of 0, every
#: waiter of the mailbox is.
Wakeup = tuple[int, int, float, float]


def to_bytes(wakeup: Wakeup) -> bytes:
    """Return a wakeup as a datagram."""
    serial, secret, wall, boot = wakeup
    return f"{serial} {secret} {wall!r} {boot!r}".encode() if secret else b"%d" % serial


def from_bytes(datagram: bytes) -> Wakeup | None:
    """Return the wakeup in a datagram; None if localconc did not write it."""
    words = datagram.split()
    try:
        if len(words) == 1:
            return int(words[0]), 0, 0.0, 0.0
        serial, secret, wall, boot = words
        return int(serial), int(secret), float(wall), float(boot)
    except ValueError:
        return None


class Mailbox:
    """Where one waiting thread or one event loop receives wakeups; this kind only from its own process.

    Attributes:
        name: its name in this process.
        on_delivery: a function for an event loop, which does not call `wait`. A sender of this process calls it in its
            own thread after it has left a wakeup.
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
        """Its name in the waiter's row; wakeups can come after the first use."""
        return self.name

    @property
    def is_reachable(self) -> bool:
        """Whether other processes can send to it; if not, its waiter polls more often."""
        return False

    @property
    def is_reusable(self) -> bool:
        """Whether to keep it for the next waiter."""
        return False

    @property
    def has_wakeups(self) -> bool:
        """Whether there are wakeups that the waiter has not taken yet."""
        return bool(self._received)

    @property
    def descriptor(self) -> int | None:
        """The descriptor that an event loop may watch; None if there is none."""
        return None

    def wait(self, seconds: float | None, watched_fd: int | None) -> None:
        """Sleep until a wakeup comes, the watched descriptor is readable (if sockets work), or the time has passed."""
        if not self._received:
            self._bell.acquire(timeout=max(0.0, SLOW_POLL_SECONDS if seconds is None else min(seconds, 1e6)))

    def deliver(self, wakeup: Wakeup) -> None:
        """Leave a wakeup. Any thread of this process may call this."""
        self._received.append(wakeup)
        on_delivery = self.on_delivery
        if on_delivery is not None:
            on_delivery()
        else:
            self._ring()

    def _ring(self) -> None:
        with suppress(RuntimeError):  # another sender has rung already
            self._bell.release()

    def drain(self) -> None:
        """Receive all wakeups that have come to the descriptor."""

    def take(self) -> list[Wakeup]:
        """Return the wakeups received since the last call, for all serials."""
        received = self._received
        taken = []
        while received:  # a sender may add one at any moment, so this never replaces the queue
            taken.append(received.popleft())
        return taken

    def close(self) -> None:
        """Stop receiving."""

    def close_in_child(self) -> None:
        """Stop receiving in a forked child; the parent keeps the mailbox."""
