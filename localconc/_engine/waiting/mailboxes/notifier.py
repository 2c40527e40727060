"""Sending wakeups to waiters."""

from __future__ import annotations

import os
import re
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from localconc._engine.homes.files import identity_of, is_same
from localconc._engine.homes.home import OWNERS_NAME, is_group_shared
from localconc._engine.waiting.mailboxes.mailbox import WAKEUP, Wakeup
from localconc._engine.waiting.mailboxes.sockets import MAX_PATH_BYTES, close_socket, new_socket, send_to_opened

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from localconc._engine.waiting.mailboxes.pool import MailboxPool

#: Addresses of mailboxes with a socket. The notifier sends to no other one, even if another user wrote one into a row.
SOCKET_ADDRESS: Final = re.compile(r"[0-9a-f]{24}\.[0-9]{1,5}", re.ASCII)

#: How many paths of mailboxes the notifier remembers.
MAX_PATHS: Final = 1_000

_CAN_OPEN_PATHS: Final = sys.platform == "linux"


class Notifier:
    """Sends wakeups, by one unconnected socket that any thread may use."""

    def __init__(self, directory: Path, pool: MailboxPool) -> None:
        self._directory = directory
        self._pool = pool
        self._socket: socket.socket | None = None
        self._descriptor, self._identity = -1, (0, 0)
        self._prefix = b""
        self._paths: dict[str, bytes] = {}  # of mailboxes that it has sent to
        self._opens_paths = False

    def send(self, wakeups: list[tuple[str, Wakeup]]) -> None:
        """Send wakeups, each to the address of a mailbox. This never fails and never blocks."""
        for address, wakeup in wakeups:
            mailbox = self._pool.find(address)
            if mailbox is not None:
                mailbox.deliver(wakeup)
                continue
            try:
                path, sender, opened = self._paths[address], self._socket, os.fstat(self._descriptor)
                if sender is not None and (opened.st_dev, opened.st_ino) == self._identity:
                    sender.sendto(WAKEUP.pack(*wakeup), path)
                    continue
            except (KeyError, OSError, struct.error):
                pass
            self._send_elsewhere(address, wakeup)

    def _send_elsewhere(self, address: object, wakeup: Wakeup) -> None:
        """Send to a mailbox for the first time, by opening its path, or once more, by a new socket if need be.

        Nothing helps if the mailbox is gone, or full, so that its waiter looks anyway, or if there are no such sockets.
        """
        if not isinstance(address, str) or not SOCKET_ADDRESS.fullmatch(address):
            return
        with suppress(OSError, AttributeError, struct.error):
            datagram = WAKEUP.pack(*wakeup)
            if self._socket is None or not is_same(self._descriptor, self._identity):
                self._open()
            path = self._prefix + address.encode()
            if self._opens_paths:
                send_to_opened(self._socket or self._open(), datagram, path)
            elif self._socket is not None:
                if len(self._paths) >= MAX_PATHS:
                    self._paths.clear()
                self._paths[address] = path
                self._socket.sendto(datagram, path)

    def _open(self) -> socket.socket:
        self.close()
        self._paths.clear()
        self._prefix = os.fsencode(self._directory / OWNERS_NAME) + b"/"
        # In a shared home, another user may have replaced a mailbox by a link to a third user's socket.
        is_long = len(self._prefix) + 32 > MAX_PATH_BYTES
        self._opens_paths = _CAN_OPEN_PATHS and (is_long or is_group_shared(self._directory))
        self._socket = sender = new_socket()
        self._descriptor = sender.fileno()
        self._identity = identity_of(self._descriptor)
        return sender

    def close(self) -> None:
        """Close the socket, also in a forked child. The next wakeup opens another one."""
        sender, self._socket, self._descriptor = self._socket, None, -1
        if sender is not None:
            close_socket(sender, self._identity)
