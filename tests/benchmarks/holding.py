"""In a worker: open a semaphore, and hold its slot from one call to the next."""

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.benchmarks import semaphores
from tests.benchmarks.crew import announce
from tests.benchmarks.semaphores import Entrance

_entrances: dict[str, Entrance] = {}
_held: dict[str, AbstractContextManager[Any]] = {}


def open_semaphore(contender: str, directory: Path, name: str, limit: int) -> None:
    """Be ready to acquire without having to open anything."""
    _entrances[name] = semaphores.entrance(contender, directory, name, limit)


def acquire(name: str) -> int:
    """Take a slot and keep it; gives the nanosecond at which it was there."""
    block = _entrances[name]()
    block.__enter__()
    taken = time.monotonic_ns()
    _held[name] = block
    return taken


def announce_and_acquire(name: str) -> int:
    """The same, and say so just before."""
    announce()
    return acquire(name)


def release(name: str, after_seconds: float = 0.0) -> int:
    """Sleep a while, then give the slot back; gives the nanosecond just before."""
    block = _held.pop(name)
    time.sleep(after_seconds)
    given = time.monotonic_ns()
    block.__exit__(None, None, None)
    return given


def wait_and_give_back(name: str) -> None:
    """Say that the wait begins; give the slot back as soon as it is there."""
    announce_and_acquire(name)
    release(name)
