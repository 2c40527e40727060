"""A time that passes only where somebody would have to wait for it."""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from localconc._engine import homes, owners
from localconc._engine.clock import SystemClock
from localconc._engine.home import is_on_a_server
from localconc._engine.wakeup import QUICK_POLL_SECONDS
from localconc.testing import slots
from localconc.testing.block import Block, environment
from localconc.testing.crowd import Crowd, Wait
from localconc.testing.homes import temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localconc._engine.wakeup import Mailbox

__all__ = ["VirtualClock", "virtual_clock"]

logger = logging.getLogger("localconc")

#: How often it is looked whether everybody waits by now, after something moved and after a while.
LOOK_SECONDS = 0.0005
LONGEST_LOOK_SECONDS = 0.01

#: After so long (real) without a jump, a warning says who is at work.
PATIENCE_SECONDS = 5.0


class VirtualClock:
    """The time inside the engine while `virtual_clock` is in force.

    Attributes:
        autojump: whether the time jumps by itself when everybody waits; may be changed at any time.
        elapsed: seconds that have passed since the block began.
    """

    def __init__(self, *, autojump: bool) -> None:
        system = SystemClock()
        self._autojump = autojump
        self._boot_identity = system.boot_identity()
        self._begin = math.ceil(system.now())  # whole seconds add up without rounding
        self._begin_wall = system.wall()
        self._passed = 0.0
        self._change = threading.Condition()
        self._crowd = Crowd()
        self._bells = threading.local()
        self._ended = False
        self._driver = threading.Thread(target=self._drive, name="localconc-virtual-clock", daemon=True)

    @property
    def autojump(self) -> bool:
        return self._autojump

    @autojump.setter
    def autojump(self, autojump: bool) -> None:
        with self._change:
            self._autojump = autojump
            self._change.notify_all()

    @property
    def elapsed(self) -> float:
        return round(self._passed, 9)

    def advance(self, seconds: float) -> None:
        """Let time pass, whoever is at work. Everybody who waited for a moment that has come by then looks at once.

        Args:
            seconds: how long, 0 or more.

        Raises:
            ValueError: it is negative or no number: time does not go back.
        """
        if not seconds >= 0 or math.isinf(seconds):
            raise ValueError(f"seconds must be a number of 0 or more, not {seconds!r}")
        with self._change:
            self._move_to(self._begin + self._passed + seconds)

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.elapsed:g} s, {len(self._crowd.waits)} waiting>"

    # ---- what the engine asks of a clock ---------------------------------------------------------------------

    def now(self) -> float:
        with self._change:
            self._crowd.note()
            return self._begin + self._passed

    def wall(self) -> float:
        return self._begin_wall + self._passed

    def boot_identity(self) -> str:
        return self._boot_identity

    def pause(self, mailbox: Mailbox, until: float | None, watched_fd: int | None) -> None:
        bell = self._bell()
        bell.silence()
        with self._waiting(threading.get_ident(), Wait(until, bell.ring, mailbox.descriptor)):
            bell.wait(mailbox.descriptor, watched_fd)
        mailbox.drain()

    async def pause_task(self, arrival: Any, until: float | None) -> None:
        import asyncio

        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(arrival.set)

        with self._waiting(asyncio.current_task(), Wait(until, wake)):
            await arrival.wait()

    @contextmanager
    def _waiting(self, who: Any, wait: Wait) -> Iterator[None]:
        _refuse_other_processes()
        with self._change:
            self._check_in_force()
            self._crowd.begin(who, wait)
            if wait.until is not None and wait.until <= self._begin + self._passed:
                wait.wake()
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._crowd.end(who)
        self._check_in_force()

    def _check_in_force(self) -> None:
        if self._ended:
            raise RuntimeError("virtual_clock() was left while somebody still waited in its time")

    def _bell(self) -> Bell:
        bell: Bell | None = getattr(self._bells, "own", None)
        if bell is None:
            bell = self._bells.own = Bell()
        return bell

    # ---- moving ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._driver.start()

    def end(self) -> None:
        """Time does not pass any more; whoever still waits is told."""
        with self._change:
            self._ended = True
            for wait in self._crowd.waits.values():
                wait.wake()
            self._change.notify_all()
        self._driver.join()

    def _drive(self) -> None:
        """Jump whenever everybody waits."""
        look_seconds, since = LOOK_SECONDS, time.monotonic()
        with self._change:
            while not self._ended:
                moment = self._crowd.earliest() if self.autojump else None
                if moment is None:
                    self._change.wait(PATIENCE_SECONDS)
                    look_seconds, since = LOOK_SECONDS, time.monotonic()
                    continue
                obstacle = self._crowd.obstacle(self._begin + self._passed, self._look_again)
                if obstacle is None:
                    self._move_to(moment)
                    look_seconds, since = LOOK_SECONDS, time.monotonic()
                elif obstacle and time.monotonic() - since > PATIENCE_SECONDS:
                    logger.warning(
                        "The virtual clock stands still at %g s, for %s. It jumps when everybody who uses localconc "
                        "waits in it or for one another; clock.advance() moves it by hand.",
                        self.elapsed,
                        obstacle,
                    )
                    since = math.inf
                if not self._change.wait(look_seconds):
                    look_seconds = min(look_seconds * 1.2, LONGEST_LOOK_SECONDS)
                else:
                    look_seconds = LOOK_SECONDS

    def _look_again(self, first: Callable[[], None]) -> None:
        with self._change:
            first()
            self._change.notify_all()

    def _move_to(self, moment: float) -> None:
        self._passed = max(self._passed, moment - self._begin)
        for wait in self._crowd.waits.values():
            if wait.until is not None and wait.until <= moment:
                wait.wake()


class Bell:
    """Wakes one thread that waits for signals."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def ring(self) -> None:
        with suppress(OSError):
            self._outside.send(b".")

    def silence(self) -> None:
        with suppress(OSError):
            while self._inside.recv(64):
                pass

    def wait(self, *descriptors: int | None) -> None:
        """Until it rings or one of the descriptors is readable; without a mailbox to be told by, for a moment only."""
        with selectors.DefaultSelector() as selector:
            for source in (self._inside, *descriptors):
                if source is not None:
                    selector.register(source, selectors.EVENT_READ)
            selector.select(QUICK_POLL_SECONDS if descriptors[0] is None else None)

    def __del__(self) -> None:
        self._inside.close()
        self._outside.close()


def _refuse_other_processes() -> None:
    engine = homes.machine("virtual_clock()")
    own_key = engine.owner.key if engine.owner else ""
    others = set(owners.living_pids(engine.directory, own_key)) - slots.helpers - {os.getpid()}
    if others:
        raise RuntimeError(
            f"virtual_clock() moves the time of this process (pid {os.getpid()}) only, but other processes use "
            f"{engine.directory} as well (pids {', '.join(map(str, sorted(others)))}): it is for one process alone."
        )


_in_force = threading.Lock()


def virtual_clock(autojump: bool = True) -> Block[VirtualClock]:
    """Let time inside the engine stand still, and jump when everybody in this process waits.

    Code that takes 100 slots at one a second finishes in milliseconds, and `clock.elapsed` says how long it would have
    taken. Time-outs run on it too; for threads and for asyncio.

    >>> with virtual_clock() as clock:
    ...     for _ in range(100):
    ...         rate_limit("api", limit=5, slot_decay_per_second=1)
    >>> clock.elapsed
    95.0

    The clock jumps to the earliest moment that a call of localconc waits for, when every thread and task that has used
    localconc in the block, and still lives, waits. To wait is

    - to be inside a call of localconc, or
    - to wait for another thread or task by the means of the standard library: a thread in `join`, `Future.result`,
      `Queue.get`, or `wait` of an Event, a Condition or a Barrier; a task that awaits another one, `gather`, `shield`,
      a TaskGroup, `to_thread`, `run_in_executor`, a queue, an event or a lock (and the one that it awaits waits, too);
      an event loop or a pool's thread that has nothing to do.

    Everything else is work, which takes no time on this clock but is not overtaken either: while somebody computes,
    sleeps (`time.sleep`, `asyncio.sleep`) or awaits a socket, the time stands still, and nobody's time-out passes
    before they are done. So it does for who waits where nobody can see for whom: in `threading.Lock`, in a
    `SimpleQueue`, for a bare Future. If that lasts for five (real) seconds, a warning (logger `localconc`) says who
    it is.

    Its moments lie in the future, and are kept out of your own limits: where neither `temporary_home` nor
    LOCALCONC_HOME names another home, the block has a temporary one.

    Args:
        autojump: whether the time jumps by itself; without, only `clock.advance(seconds)` moves it.

    Returns:
        A context manager that yields a `VirtualClock`, and a decorator of functions and of coroutine functions.

    Raises:
        RuntimeError: on entering, another one is in force. Inside: another process uses the same home, in that process
            or in the one that waits (`hold` excepted, whose process only holds).
    """
    return Block(lambda: _in_virtual_time(autojump))


@contextmanager
def _in_virtual_time(autojump: bool) -> Iterator[VirtualClock]:
    if not _in_force.acquire(blocking=False):
        raise RuntimeError("virtual_clock() is in force already")
    try:
        if is_on_a_server():
            homes.machine("virtual_clock()")
        with nullcontext() if os.environ.get("LOCALCONC_HOME") else temporary_home():
            clock = VirtualClock(autojump=autojump)
            pid = os.getpid()
            homes.use_clock(clock, is_alone=True)
            clock.begin()
            try:
                with environment(homes.VIRTUAL_CLOCK, str(pid)):
                    yield clock
            finally:
                if os.getpid() == pid:  # in a forked child, the thread that moves the time is no more
                    clock.end()
                homes.use_clock(None)
    finally:
        _in_force.release()
