"""The least a hand-over can be: one transaction that names the next waiter, and one datagram to it."""

import socket
import sqlite3
import time
from pathlib import Path

from tests.benchmarks.crew import announce

SCHEMA = """
PRAGMA page_size = 1024;
PRAGMA journal_mode = WAL;
CREATE TABLE waiter (id INTEGER PRIMARY KEY, address TEXT, granted INTEGER);
"""
NAME_THE_NEXT = "UPDATE waiter SET granted = granted + 1 WHERE id = ? RETURNING address"

_connections: dict[Path, sqlite3.Connection] = {}
_senders: dict[Path, socket.socket] = {}
_receivers: dict[Path, socket.socket] = {}


def lay_out(directory: Path) -> None:
    """In the waiter: make the file with one waiter in it, and the socket it listens on."""
    address = directory / "waiter.socket"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(address))
    _receivers[directory] = receiver
    connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
    connection.executescript(SCHEMA)
    connection.execute("INSERT INTO waiter VALUES (1, ?, 0)", (str(address),))
    connection.close()


def open_up(directory: Path) -> None:
    """In the holder: open the file and a socket to send from."""
    connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    _connections[directory] = connection
    _senders[directory] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def hand_over(directory: Path, after_seconds: float) -> int:
    """In the holder: sleep, then name the next and tell it; gives the nanosecond just before."""
    execute, sender = _connections[directory].execute, _senders[directory]
    time.sleep(after_seconds)
    start = time.monotonic_ns()
    execute("BEGIN IMMEDIATE")
    ((address,),) = execute(NAME_THE_NEXT, (1,)).fetchall()
    execute("COMMIT")
    sender.sendto(b"!", address)
    return start


def wait(directory: Path) -> int:
    """In the waiter: sleep until told; gives the nanosecond just after."""
    receiver = _receivers[directory]
    announce()
    receiver.recv(16)
    return time.monotonic_ns()
