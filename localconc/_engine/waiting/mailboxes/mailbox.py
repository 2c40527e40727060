"""The mailbox in which a waiter receives wakeups.

A wakeup is a hint to look at the store. Any process may send one, and any may be lost, because the waiter also polls.
The wakeup of a grant saves the waiter the look: the granting process sends it after the commit, with the secret of the
waiter's row, which proves that the sender can read the store.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
from collections import deque
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING, ClassVar, Final

from localconc._engine.core.clock import SystemClock
from localconc._engine.homes.files import close_same, identity_of, is_same
from localconc._engine.waiting.mailboxes.sockets import (
    MAX_PATH_BYTES,
    bind,
    close_socket,
    load,
    new_socket,
    send_to_opened,
)
from localconc._engine.waiting.timing import EXACT_SLEEP_SECONDS, MAX_EXACT_SECONDS, SLOW_POLL_SECONDS
from localconc._locks import new_lock

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

_now = SystemClock.now

#: The serial of the waiter's acquisition and, for a grant, the secret of its row with the moments of the grant, by the
#: wall clock and by the boot clock. With a secret of 0, the waiter is to look at the store; with a serial of 0, every
#: waiter of the mailbox is.
Wakeup = tuple[int, int, float, float]

#: The wakeup that asks every waiter of a mailbox to look at the store.
LOOK: Final = (0, 0, 0.0, 0.0)

#: How often the next waiter looks whether the file of a mailbox is still there.
LOOK_EVERY_SECONDS: Final = 0.01

#: The form of a wakeup as a datagram.
WAKEUP: Final = struct.Struct("=qqdd")


def from_bytes(datagram: bytes) -> Wakeup | None:
    """Return the wakeup in a datagram; None if localconc did not write it."""
    return WAKEUP.unpack(datagram) if len(datagram) == WAKEUP.size else None


class Mailbox:
    """Where one waiting thread or one event loop receives wakeups; this kind only from its own process.

    Attributes:
        name: its name in this process.
        on_delivery: a function for an event loop, which does not call `wait`. A sender of this process calls it in its
            own thread after it has left a wakeup.
        is_kept: whether to keep it for the next waiter, who can use it if it `is_reusable`.
        look_at: until when it is reusable without a look, by the boot clock.
    """

    is_kept: ClassVar[bool] = False

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.on_delivery: Callable[[], object] | None = None
        self.look_at = 0.0
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
        """Whether the next waiter can use it; sets `look_at`."""
        return False

    @property
    def has_wakeups(self) -> bool:
        """Whether there are wakeups that the waiter has not taken yet."""
        return bool(self._received)

    def has(self, wakeup: Wakeup) -> bool:
        """Return whether there is such a wakeup that the waiter has not taken yet."""
        return wakeup in tuple(self._received)

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

    def wake(self) -> None:
        """Wake the thread that waits, without a wakeup for it: it is to choose anew how often it polls."""
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


if sys.platform != "win32":  # Python has neither such sockets nor poll() there

    class SocketMailbox(Mailbox):
        """A Unix datagram socket with a file in the home, which works across network namespaces.

        It is opened at the first use of its address, when a request is about to be queued, because most calls never
        wait. If that fails, because the system has no such sockets or no descriptors are left, only its own process can
        send.

        Senders of this process wake a sleeping thread through an eventfd, which costs a tenth of a datagram. If other
        code closes the descriptors, the mailbox works on without them, and never touches files that have taken their
        numbers.
        """

        is_kept: ClassVar[bool] = True

        def __init__(self, directory: Path, name: str) -> None:
            super().__init__(name)
            load()
            self._directory = directory
            self._was_opened = False
            self._lock = new_lock()  # a sender must not write to an eventfd that is closed at this moment
            self._socket: socket.socket | None = None
            self._descriptor = self._eventfd = -1
            self._identity = self._eventfd_identity = (0, 0)
            self._watched_fd: int | None = None

        @property
        def address(self) -> str:
            if not self._was_opened:
                self._open()
            return self.name

        @property
        def is_reachable(self) -> bool:
            if not self._was_opened:
                self._open()
            return self._socket is not None

        @property
        def is_reusable(self) -> bool:
            if not self._was_opened:
                return True
            if self._socket is None or not os.path.lexists(self._path):  # a cleaner of /tmp may have removed it
                return False
            self.look_at = _now() + LOOK_EVERY_SECONDS
            return True

        @property
        def descriptor(self) -> int | None:
            if not self._was_opened:
                self._open()
            return self._descriptor if self._socket is not None else None

        def _open(self) -> None:
            self._was_opened = True
            with suppress(OSError, AttributeError):
                opened = new_socket()
                try:
                    self._identity = identity_of(opened.fileno())
                    self._poll = select.poll()
                    self._poll.register(opened, select.POLLIN)
                    self._path = bind(opened, self._directory, self.name)
                except BaseException:
                    opened.close()
                    raise
                self._descriptor = opened.fileno()
                self._socket = opened
                self._open_eventfd()

        # ---- sleeping ------------------------------------------------------------------------------------------------

        def wait(self, seconds: float | None, watched_fd: int | None) -> None:
            if self._socket is None and not self.is_reachable:
                super().wait(seconds, None)
                return
            if watched_fd != self._watched_fd:
                self._watch(watched_fd)
            if seconds is None or seconds > MAX_EXACT_SECONDS:
                ready = self._poll.poll(None if seconds is None else seconds * 1000)
            else:
                ready = self._sleep_exactly(seconds)
            for descriptor, _ in ready:
                if descriptor == self._eventfd:
                    self._silence()
                elif descriptor == self._descriptor:
                    self._receive()  # mostly there is only one wakeup; a second one ends the next wait at once

        def _sleep_exactly(self, seconds: float) -> list[tuple[int, int]]:
            """Sleep until an exact moment; poll() alone counts whole milliseconds."""
            poll = self._poll.poll
            deadline = _now() + seconds
            coarse = seconds - EXACT_SLEEP_SECONDS / 2
            ready = poll(coarse * 1000) if coarse > 0 else []
            if not ready:
                remaining = deadline - _now()
                if remaining > 0:
                    sleep(min(remaining, EXACT_SLEEP_SECONDS))
                ready = poll(0)
            return ready

        def _watch(self, watched_fd: int | None) -> None:
            if self._watched_fd is not None:
                with suppress(KeyError):
                    self._poll.unregister(self._watched_fd)
            if watched_fd is not None:
                self._poll.register(watched_fd, select.POLLIN)
            self._watched_fd = watched_fd

        # ---- receiving -----------------------------------------------------------------------------------------------

        def drain(self) -> None:
            while self._receive():
                pass

        def _receive(self) -> bool:
            receiver = self._socket
            if receiver is None:
                return False
            try:
                found = os.fstat(self._descriptor)
                if (found.st_dev, found.st_ino) != self._identity:
                    raise OSError("other code closed the descriptor, and another file has its number")
            except OSError:
                self.close()
                return False
            try:
                wakeup = from_bytes(receiver.recv(WAKEUP.size + 1))
            except OSError:  # there are no more wakeups
                return False
            if wakeup is not None:
                self._received.append(wakeup)
            return True

        # ---- senders of this process ---------------------------------------------------------------------------------

        def _open_eventfd(self) -> None:
            if sys.platform != "linux":
                return
            with suppress(OSError, AttributeError):  # without an eventfd, senders use the socket
                eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._poll.register(eventfd, select.POLLIN)
                self._eventfd_identity = identity_of(eventfd)
                self._eventfd = eventfd

        def _ring(self) -> None:
            with self._lock:
                if self._socket is None:
                    super()._ring()
                elif sys.platform == "linux" and self._eventfd >= 0 and is_same(self._eventfd, self._eventfd_identity):
                    with suppress(BlockingIOError):  # its counter is full, so it wakes the thread anyway
                        os.eventfd_write(self._eventfd, 1)
                else:
                    self._send_to_itself()

        def _send_to_itself(self) -> None:
            """Ring by an empty datagram, which wakes a sleeping thread even if other code closed the descriptors."""
            with suppress(OSError, AttributeError):
                sender = new_socket()
                try:
                    if len(self._path) <= MAX_PATH_BYTES:
                        sender.sendto(b"", self._path)
                    else:
                        send_to_opened(sender, b"", self._path)
                finally:
                    sender.close()

        def _silence(self) -> None:
            if not is_same(self._eventfd, self._eventfd_identity):
                self.close()
            elif sys.platform == "linux":
                with suppress(BlockingIOError):
                    os.eventfd_read(self._eventfd)

        def close(self) -> None:
            self.look_at = 0.0
            with self._lock:
                closed, self._socket = self._socket, None
                if closed is not None:
                    close_socket(closed, self._identity)
                if self._eventfd >= 0:
                    close_same(self._eventfd, self._eventfd_identity)
                    self._eventfd = -1

        def close_in_child(self) -> None:
            self._lock = new_lock()  # another thread of the parent may have held it at the fork
            self.close()
