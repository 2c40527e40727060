"""How a waiter is told: a datagram to the mailbox named in its row, with a slow poll behind it.

A signal is a hint to look at the store. Anybody may send one, any may be lost, nothing depends on it. One that tells
of a grant saves the look: it is sent after the commit and carries the secret of the waiter's row, which only those who
can read the store know, so it proves what the store says.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import socket

#: Addresses begin with this, so that a hostile row can't make us write to other programs' sockets.
ADDRESS_PREFIX: Final = "localconc-"

#: How often a waiter looks without being told: where signals and watches work, and where they don't.
SLOW_POLL_SECONDS: Final = 0.8
QUICK_POLL_SECONDS: Final = 0.05

#: With so many in front, a waiter leaves it to them, and looks this many times less often.
FAR_BEHIND: Final = 4
FAR_BEHIND_FACTOR: Final = 6

#: Who should have acted by then, when slots had drained, is stopped: others act for it.
OVERDUE_SECONDS: Final = 0.02

MOST_SIGNAL_BYTES: Final = 128

#: The last stretch before a moment is slept through exactly, as poll() counts whole milliseconds only. For a moment far
#: away, this is not worth a second wake-up.
EXACT_SLEEP_SECONDS: Final = 0.002
LONGEST_EXACT_SECONDS: Final = 0.1


class Signal(NamedTuple):
    """What a waiter is told: to look, or (with the secret of its row) that it was admitted, and when."""

    ticket: int
    secret: int = 0
    admitted_at: float = 0.0
    admitted_since: float = 0.0

    def to_bytes(self) -> bytes:
        if not self.secret:
            return b"%d" % self.ticket
        return f"{self.ticket} {self.secret} {self.admitted_at!r} {self.admitted_since!r}".encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Signal | None:
        """The signal, or None for what somebody else made up."""
        words = text.split()
        try:
            if len(words) == 1:
                return cls(int(words[0]))
            ticket, secret, admitted_at, admitted_since = words
            return cls(int(ticket), int(secret), float(admitted_at), float(admitted_since))
        except ValueError:
            return None


class Mailbox:
    """Where one waiting thread, or one event loop, receives signals."""

    #: Name in the waiter's row; empty where nobody can send.
    address = ""

    def __init__(self) -> None:
        self._received: list[Signal] = []

    @property
    def descriptor(self) -> int | None:
        """What an event loop may watch; None if there is nothing to watch."""
        return None

    def wait(self, seconds: float | None, watched_fd: int | None) -> None:
        """Sleep until a signal comes, the watched descriptor is readable, or the time has passed."""
        time.sleep(QUICK_POLL_SECONDS if seconds is None else max(0.0, min(seconds, QUICK_POLL_SECONDS)))

    def drain(self) -> None:
        """Receive all signals that have come."""

    def take(self) -> list[Signal]:
        """The signals received since the last time."""
        received, self._received = self._received, []
        return received

    def abandon(self) -> None:
        """Stop receiving, in a forked child: the mailbox goes on to be the parent's."""


class SocketMailbox(Mailbox):
    """A Unix datagram socket: in Linux's abstract namespace, or a file in the home."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._socket = _new_socket()
        self.address = ADDRESS_PREFIX + os.urandom(8).hex()
        try:
            self._socket.bind(_socket_path(directory, self.address))
        except OSError:
            self._socket.close()
            raise
        self._file = None if sys.platform == "linux" else directory / self.address

    @property
    def descriptor(self) -> int | None:
        return self._socket.fileno()

    def wait(self, seconds: float | None, watched_fd: int | None) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if watched_fd is not None:
            poll.register(watched_fd, select.POLLIN)
        if seconds is None or seconds > LONGEST_EXACT_SECONDS:
            poll.poll(None if seconds is None else seconds * 1000)
        else:
            deadline = time.monotonic() + seconds
            coarse = seconds - EXACT_SLEEP_SECONDS / 2
            if coarse <= 0 or not poll.poll(coarse * 1000):
                remaining = deadline - time.monotonic()
                if remaining > 0:
                    select.select((), (), (), min(remaining, EXACT_SLEEP_SECONDS))
        self._receive()  # one signal, most often the only one; another makes the next wait end at once

    def drain(self) -> None:
        while self._receive():
            pass

    def _receive(self) -> bool:
        try:
            signal = Signal.from_bytes(self._socket.recv(MOST_SIGNAL_BYTES))
        except BlockingIOError:
            return False
        if signal is not None:
            self._received.append(signal)
        return True

    def abandon(self) -> None:
        self._socket.close()

    def __del__(self) -> None:
        if self._file is not None and self._socket.fileno() >= 0:
            self._file.unlink(missing_ok=True)


def open_mailbox(directory: Path) -> Mailbox:
    """A mailbox of the best kind that works here."""
    if hasattr(select, "poll"):
        with suppress(OSError, AttributeError):  # out of descriptors, a path too long, or no such sockets here
            return SocketMailbox(directory)
    return Mailbox()


def _new_socket() -> socket.socket:
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def _socket_path(directory: Path, address: str) -> str:
    return "\0" + address if sys.platform == "linux" else str(directory / address)


class Post:
    """Sends signals; keeps one unconnected socket for all of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._socket: socket.socket | None = None

    def send(self, signals: list[tuple[str, Signal]]) -> None:
        """Tell waiters, given by their mailbox's address. Never fails, never blocks."""
        for address, signal in signals:
            if not isinstance(address, str) or not address.startswith(ADDRESS_PREFIX) or "/" in address:
                continue
            try:
                if self._socket is None:
                    self._socket = _new_socket()
                self._socket.sendto(signal.to_bytes(), _socket_path(self._directory, address))
            except (OSError, AttributeError):
                continue  # gone, or so full that it will look anyway

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
