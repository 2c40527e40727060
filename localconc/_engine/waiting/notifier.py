"""Sending wakeups to waiters, of this process and of others."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.files import identity_of, is_same
from localconc._engine.core.home import OWNERS_NAME, is_group_shared

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from localconc._engine.waiting.mailbox_pool import MailboxPool

MAX_WAKEUP_BYTES: Final = 128

#: Addresses of mailboxes that a socket has; nothing else is sent to, whatever somebody wrote into a row.
SOCKET_ADDRESS: Final = re.compile(r"[0-9a-f]{24}\.[0-9]{1,5}", re.ASCII)

#: The longest path that the address of a socket can hold everywhere.
MAX_PATH_BYTES: Final = 100

_CAN_OPEN_PATHS: Final = sys.platform == "linux"


class Wakeup(NamedTuple):
    """What a waiter is told: to look, or (with the secret of its row) that it was granted its slots, and when.

    A serial of 0 tells every waiter of the mailbox to look.
    """

    serial: int
    secret: int = 0
    acquired_wall: float = 0.0
    acquired_boot: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the wakeup as a datagram."""
        serial, secret, wall, boot = self
        return f"{serial} {secret} {wall!r} {boot!r}".encode() if secret else b"%d" % serial

    @classmethod
    def from_bytes(cls, datagram: bytes) -> Wakeup | None:
        """Return the wakeup in a datagram, or None for what somebody else made up."""
        words = datagram.split()
        try:
            if len(words) == 1:
                return cls(int(words[0]))
            serial, secret, wall, boot = words
            return cls(int(serial), int(secret), float(wall), float(boot))
        except ValueError:
            return None


class Notifier:
    """Sends wakeups; keeps one unconnected socket for all of them, which any thread may use."""

    def __init__(self, directory: Path, pool: MailboxPool) -> None:
        self._directory = directory
        self._pool = pool
        self._socket: socket.socket | None = None
        self._identity = (0, 0)
        self._prefix = b""
        self._opens_paths = False

    def send(self, wakeups: list[tuple[str, Wakeup]]) -> None:
        """Tell waiters, given by the addresses of their mailboxes. It never fails and never blocks."""
        for address, wakeup in wakeups:
            mailbox = self._pool.find(address)
            if mailbox is not None:
                mailbox.deliver(wakeup)
            elif isinstance(address, str) and SOCKET_ADDRESS.fullmatch(address):
                with suppress(
                    OSError, AttributeError
                ):  # gone, no sockets here, or so full that the waiter looks anyway
                    self._send(address.encode(), wakeup.to_bytes())

    def _send(self, address: bytes, datagram: bytes) -> None:
        sender = self._socket
        if sender is None or not is_same(sender.fileno(), self._identity):
            sender = self._open()
        path = self._prefix + address
        if not self._opens_paths:
            sender.sendto(datagram, path)
            return
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            sender.sendto(datagram, b"/proc/self/fd/%d" % descriptor)
        finally:
            os.close(descriptor)

    def _open(self) -> socket.socket:
        self.close()
        self._prefix = os.fsencode(self._directory / OWNERS_NAME) + b"/"
        # In a shared home, another user may have put a link to somebody else's socket in the place of a mailbox.
        is_long = len(self._prefix) + 32 > MAX_PATH_BYTES
        self._opens_paths = _CAN_OPEN_PATHS and (is_long or is_group_shared(self._directory))
        self._socket = sender = new_socket()
        self._identity = identity_of(sender.fileno())
        return sender

    def close(self) -> None:
        """Close the socket; in a forked child, too. The next wakeup opens another one."""
        sender, self._socket = self._socket, None
        if sender is not None:
            close_socket(sender, self._identity)


def new_socket() -> socket.socket:
    """Return a socket for datagrams within this machine, which never blocks.

    Raises:
        OSError, AttributeError: there are none here, or no descriptors are left.
    """
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def close_socket(opened: socket.socket, identity: tuple[int, int]) -> None:
    """Close a socket, unless somebody has closed it already and its number is another file's by now."""
    if is_same(opened.fileno(), identity):
        opened.close()
    else:
        opened.detach()
