"""The least a hand-over can be: one transaction that names the next waiter, and one datagram to it."""

import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

SCHEMA = """
PRAGMA page_size = 1024;
PRAGMA journal_mode = WAL;
CREATE TABLE waiter (id INTEGER PRIMARY KEY, address TEXT, granted INTEGER);
"""
NAME_THE_NEXT = "UPDATE waiter SET granted = granted + 1 WHERE id = ? RETURNING address"
FILE = "bare.sqlite"


class BareWaiter:
    """The side that sleeps: makes the file with one waiter in it, and listens on a socket."""

    def __init__(self, directory: Path) -> None:
        address = directory / "waiter.socket"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        connection = sqlite3.connect(directory / FILE, isolation_level=None)
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO waiter VALUES (1, ?, 0)", (str(address),))
        connection.close()

    def wait(self, announce: Callable[[], object]) -> int:
        """Announce the wait, sleep until the datagram comes; gives the nanosecond just after."""
        announce()
        self._socket.recv(16)
        return time.monotonic_ns()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class BareHolder:
    """The side that releases: names the next waiter in the file that is there already, then tells it."""

    def __init__(self, directory: Path) -> None:
        self._connection = sqlite3.connect(directory / FILE, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def release(self) -> int:
        """Hand over; gives the nanosecond just before."""
        start = time.monotonic_ns()
        self._sender.sendto(b"!", self.name_the_next())
        return start

    def name_the_next(self) -> str:
        """Run the transaction alone; gives the next waiter's address."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        ((address,),) = execute(NAME_THE_NEXT, (1,)).fetchall()
        execute("COMMIT")
        return str(address)

    def close(self) -> None:
        """Close the file and the socket."""
        self._connection.close()
        self._sender.close()
