"""Slots as a test deals with them: held by another process, or counted afterwards."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import localconc
from localconc import errors, sync
from localconc._engine import registry
from localconc._engine.core import arguments
from localconc._environment import DISABLED
from localconc.events import read_events
from localconc.limits import read_holders, read_limit
from localconc.testing.block import Block
from localconc.testing.homes import reap_the_dead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from localconc.events import Event

__all__ = ["HeldSlots", "helpers", "hold", "peak"]

#: How long a helper gets to end by itself before it is killed.
SHUTDOWN_TIMEOUT_SECONDS: Final = 5.0

#: Helpers of this process. They only hold slots, so they may use a home whose time a test moves.
helpers: set[int] = set()

_HELPER: Final = "from localconc.testing.slots import serve; serve()"


class HeldSlots:
    """Slots that a helper process holds for a test.

    Attributes:
        pid: the helper process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def kill(self) -> None:
        """Kill the helper (SIGKILL), as a crash would. Its slots are freed automatically."""
        self._process.kill()
        self._process.wait()
        reap_the_dead()

    def __repr__(self) -> str:
        return f"<HeldSlots by pid {self.pid}>"


def hold(
    name: str, occupy: int = 1, *, limit: int | None = None, timeout_seconds: float | None = 10.0
) -> Block[HeldSlots]:
    """Hold slots from another process until the end of the block, so that a test can make a limit full.

    >>> with hold("database", 2, limit=2):
    ...     with pytest.raises(TimeoutError):
    ...         query(timeout_seconds=0)

    It works inside `virtual_clock()` and `disabled()`, too: the helper process lives by real time, and does hold.

    Args:
        name: of the limit.
        occupy: slots to hold, 1 or more.
        limit: create the limit with this many slots if it is missing.
        timeout_seconds: how long (in real time) to wait for the slots, 0 or more; None for as long as it takes.

    Returns:
        A context manager whose `with` returns a `HeldSlots` with the helper's `pid` and `kill()`; it also decorates
        functions.

    Raises:
        ValueError, TypeError: at once, for an argument out of range.
        ConcurrencySlotAcquisitionError: on entry, the limit is not enforced, or has fewer slots.
        AcquireConcurrencySlotTimeoutError: on entry, the slots were not free in time.
        StoreError: on entry, the database can't be used.
    """
    arguments.limit_name("name", name)
    arguments.whole("occupy", occupy, 1)
    arguments.timeout(timeout_seconds)
    if limit is not None:
        arguments.whole("limit", limit, 0)
    return Block(lambda: _held((name, occupy, limit, timeout_seconds)))


@contextmanager
def _held(asked: tuple[str, int, int | None, float | None]) -> Iterator[HeldSlots]:
    registry.refuse_server("hold()")
    source = Path(localconc.__file__).parent.parent
    path = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-c", _HELPER, repr(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, registry.VIRTUAL_CLOCK: "", DISABLED: ""},
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
        raise RuntimeError(f"The helper process ended with status {process.wait()} before it held any slots.")
    raise getattr(errors, kind, RuntimeError)(message)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()  # the helper releases its slots
    try:
        process.wait(SHUTDOWN_TIMEOUT_SECONDS)
    except BaseException as interruption:
        process.kill()
        process.wait()
        if not isinstance(interruption, subprocess.TimeoutExpired):
            raise
    finally:
        process.stdout.close()


def serve() -> None:
    """Be the helper process: acquire slots, say so, and release them once the standard input ends."""
    name, occupy, limit, timeout_seconds = ast.literal_eval(sys.argv[1])
    try:
        with sync.concurrency(name, occupy, timeout_seconds=timeout_seconds, limit=limit, strict=True):
            print("held", flush=True)
            sys.stdin.read()
    except errors.LocalconcError as error:
        print(type(error).__name__, " ".join(str(error).split()), flush=True)


# ---- counting --------------------------------------------------------------------------------------------------------


def peak(name: str) -> int:
    """Return the most slots of a limit that were held at the same time, by all processes.

    >>> run_import(threads=8)
    >>> assert peak("database") >= 4  # the import uses the slots that it may have

    It reads the history, which keeps the last 10,000 acquisitions with the times that each process read. On a busy
    machine, the end of one and the beginning of the next may seem to overlap, which is never counted beyond the limit
    that admitted them. Blocks that begin and end at the same moment (on a virtual clock, work takes no time) count one
    by one. Slots acquired by `rate_limit` are not held, so they do not count.

    Args:
        name: of the limit.

    Returns:
        How many slots; 0 if none was ever held.

    Raises:
        LimitNotFoundError: there is no such limit.
        StoreError: the database can't be used.
    """
    registry.refuse_server("peak()")
    decays = read_limit(name).slot_decay_per_second > 0  # held slots drain then, so that more than the limit may hold
    held = most = 0
    for _, order, slots, limit in sorted(_changes(name)):
        if slots > 0:
            most = max(most, held + slots if decays else min(held + slots, limit))
        if order != MOMENTARY:
            held += slots
    return most


#: The order of what happens at one moment: slots are released before others are acquired.
RELEASED, MOMENTARY, ACQUIRED = range(3)


def _changes(name: str) -> Iterator[tuple[float, int, int, int]]:
    """Yield each change: its time, its order at that moment, the slots more or fewer, and the limit at that time."""
    current = {(holder.acquired_at, holder.slots) for holder in read_holders(name)}
    spans: dict[object, list[Event]] = {}
    for event in read_events(name):
        spans.setdefault(event.follows or event.id, []).append(event)
    for acquired, *released in spans.values():
        slots, limit = int(acquired.resource["slots-acquired"]), int(acquired.resource["limit"])
        begin = acquired.occurred.timestamp()
        end = released[0].occurred.timestamp() if released else None
        if end is not None:
            yield begin, MOMENTARY if end <= begin else ACQUIRED, slots, limit
            if end > begin:
                yield end, RELEASED, -slots, limit
        elif (acquired.occurred, slots) in current:  # else rate_limit acquired them
            yield begin, ACQUIRED, slots, limit
