"""Slots that another process holds; and how many were held at once."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import localconc
from localconc import errors
from localconc._engine import arguments, homes
from localconc._engine.switch import DISABLED
from localconc.events import read_events
from localconc.limits import read_holders, read_limit
from localconc.testing.block import Block
from localconc.testing.leaks import reap_the_dead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc.events import Event

__all__ = ["HeldSlots", "helpers", "hold", "peak"]

#: How long a helper gets to end by itself before it is killed.
FAREWELL_SECONDS = 5.0

#: Processes that hold slots for this one: they do nothing else, so they are at home in any time.
helpers: set[int] = set()


class HeldSlots:
    """Slots that a helper process holds for a test.

    Attributes:
        pid: the helper process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """Kill the process in the midst of it (SIGKILL), as a crash would. Its slots come back by themselves."""
        self._process.kill()
        self._process.wait()
        reap_the_dead()

    def __repr__(self) -> str:
        return f"<HeldSlots by pid {self.pid}>"


def hold(
    name: str, occupy: int = 1, *, limit: int | None = None, timeout_seconds: float | None = 10.0
) -> Block[HeldSlots]:
    """Occupy slots from a real process of its own until the block is left, so that a test can make a limit full.

    >>> with hold("database", 2, limit=2):
    ...     with pytest.raises(TimeoutError):
    ...         query(timeout_seconds=0)

    It works inside `virtual_clock()` and `disabled()` too: the helper only holds, and does hold.

    Args:
        name: of the limit.
        occupy: how many slots, 1 or more.
        limit: make a missing limit one with so many slots.
        timeout_seconds: how long (real) to wait for the slots, 0 or more; None for as long as it takes.

    Returns:
        A context manager that yields a `HeldSlots` with the helper's `pid` and `kill()`; and a decorator.

    Raises:
        ValueError, TypeError: at once, for an argument out of range.
        ConcurrencySlotAcquisitionError: on entering, the limit is not enforced, or has fewer slots.
        AcquireConcurrencySlotTimeoutError: on entering, the slots were not free in time.
        StoreError: on entering, the database can't be used.
    """
    arguments.limit_name("name", name)
    arguments.whole("occupy", occupy, 1)
    arguments.timeout(timeout_seconds)
    if limit is not None:
        arguments.whole("limit", limit, 0)
    return Block(lambda: _held((name, occupy, limit, timeout_seconds)))


@contextmanager
def _held(what: tuple[str, int, int | None, float | None]) -> Iterator[HeldSlots]:
    homes.machine("hold()")
    source = Path(localconc.__file__).parent.parent
    path = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "localconc.testing.holding", repr(what)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, homes.VIRTUAL_CLOCK: "", DISABLED: ""},
    )
    helpers.add(process.pid)
    try:
        _wait_until_held(process)
        yield HeldSlots(process)
    finally:
        _end(process)
        helpers.discard(process.pid)


def _wait_until_held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    kind, _, message = process.stdout.readline().strip().partition(" ")
    if kind == "held":
        return
    if not kind:
        raise RuntimeError(f"the process that was to hold slots ended with {process.wait()} before it held any")
    raise getattr(errors, kind, RuntimeError)(message)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()  # the helper gives its slots back
    try:
        process.wait(FAREWELL_SECONDS)
    except BaseException as interruption:
        process.kill()
        process.wait()
        if not isinstance(interruption, subprocess.TimeoutExpired):
            raise
    finally:
        process.stdout.close()


def peak(name: str) -> int:
    """The most slots of a limit that were held at the same time, by all processes, as far as the history goes.

    >>> run_import(threads=8)
    >>> assert peak("database") >= 4  # it does use the slots it may have

    The history keeps the last 10,000 acquisitions, by the clock that each process read: on a busy machine, one that
    ended and the next may seem to overlap, which never counts beyond the limit that admitted them. Blocks that begin
    and end at the same moment (on a virtual clock, work takes no time) count one by one. Slots taken by `rate_limit`
    are not held, and don't count.

    Args:
        name: of the limit.

    Returns:
        How many slots.

    Raises:
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    homes.machine("peak()")
    decays = read_limit(name).slot_decay_per_second > 0  # held slots drain then, so that more than the limit may hold
    held = most = 0
    for _, order, slots, limit in sorted(_changes(name)):
        if slots > 0:
            most = max(most, held + slots if decays else min(held + slots, limit))
        if order != MOMENTARY:
            held += slots
    return most


#: The order of what happens at one moment: those who leave make room for those who come.
LEAVES, MOMENTARY, COMES = range(3)


def _changes(name: str) -> Iterator[tuple[float, int, int, int]]:
    """When how many slots more or fewer were held, with their order at that moment and the limit that admitted them."""
    current = {(holder.acquired_at, holder.slots) for holder in read_holders(name)}
    spans: dict[object, list[Event]] = {}
    for event in read_events(name):
        spans.setdefault(event.follows or event.id, []).append(event)
    for acquired, *released in spans.values():
        slots, limit = int(acquired.resource["slots-acquired"]), int(acquired.resource["limit"])
        begin = acquired.occurred.timestamp()
        end = released[0].occurred.timestamp() if released else None
        if end is not None:
            yield begin, MOMENTARY if end <= begin else COMES, slots, limit
            if end > begin:
                yield end, LEAVES, -slots, limit
        elif (acquired.occurred, slots) in current:  # else rate_limit took them
            yield begin, COMES, slots, limit
