"""A clock whose time passes only when all participants wait for it."""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

from localconc._engine import registry
from localconc._engine.core.clock import SystemClock
from localconc._engine.waiting.mailboxes.mailbox import Mailbox
from localconc._engine.waiting.timing import QUICK_POLL_SECONDS
from localconc.testing import slots
from localconc.testing.block import Block, environment
from localconc.testing.homes import temporary_home
from localconc.testing.participants import Participants, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localconc._engine.core import clock as core

__all__ = ["VirtualClock", "virtual_clock"]

logger = logging.getLogger("localconc")

#: How often the clock checks whether all participants wait: soon after one of them moved, and after a while.
MIN_CHECK_SECONDS: Final = 0.0005
MAX_CHECK_SECONDS: Final = 0.01

#: After this long (in real time) without a jump, a warning names a participant that is at work.
PATIENCE_SECONDS = 5.0

#: The digits of `elapsed`. The engine adds its moments to the machine's uptime, so they are not more exact.
ELAPSED_DIGITS: Final = 6


class VirtualClock:
    """The time inside the engine while `virtual_clock` is in force. It begins at the present moment.

    Attributes:
        autojump: whether the time jumps by itself when all participants wait; may be changed at any time.
        elapsed: seconds that have passed since the block began, to the microsecond.
    """

    def __init__(self, *, autojump: bool) -> None:
        system = SystemClock()
        self._autojump = autojump
        self._boot_identity = system.boot_identity()
        self._begin_wall = system.wall()
        self._begin = self._now = system.now()
        self._change = threading.Condition()
        self._participants = Participants()
        self._pipes = threading.local()
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
        return round(self._now - self._begin, ELAPSED_DIGITS)

    def advance(self, seconds: float) -> None:
        """Let time pass, even if a participant is at work. Those that waited for a moment that has come continue.

        Args:
            seconds: how long, 0 or more.

        Raises:
            ValueError: it is negative or no number, because time does not go back.
        """
        if not seconds >= 0 or math.isinf(seconds):
            raise ValueError(f"seconds must be a number of 0 or more, not {seconds!r}")
        with self._change:
            self._move_to(self._now + seconds)

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.elapsed:g} s, {len(self._participants.waits)} waiting>"

    # ---- the engine's clock ----------------------------------------------------------------------------------

    def now(self) -> float:
        if threading.current_thread() is not self._driver:  # the driver, too, may collect garbage and release slots
            with self._change:
                self._participants.note()
        return self._now

    def wall(self) -> float:
        return self._begin_wall + (self._now - self._begin)

    def boot_identity(self) -> str:
        return self._boot_identity

    def pause(self, mailbox: core.Mailbox, until: float | None, watched_fd: int | None) -> None:
        assert isinstance(mailbox, Mailbox)
        pipe = self._pipe()
        pipe.drain()
        mailbox.on_delivery = pipe.wake
        try:
            with self._waiting(threading.get_ident(), Wait(until, pipe.wake, mailbox)):
                if not mailbox.has_wakeups:
                    pipe.wait(mailbox.descriptor, watched_fd)
        finally:
            mailbox.on_delivery = None
        mailbox.drain()

    async def pause_task(self, event: Any, until: float | None) -> None:
        import asyncio

        loop = asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(event.set)

        with self._waiting(asyncio.current_task(), Wait(until, wake)):
            await event.wait()

    @contextmanager
    def _waiting(self, participant: Any, wait: Wait) -> Iterator[None]:
        _refuse_other_processes()
        with self._change:
            self._check_in_force()
            self._participants.begin(participant, wait)
            if wait.until is not None and wait.until <= self._now:
                wait.wake()
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._participants.end(participant)
        self._check_in_force()

    def _check_in_force(self) -> None:
        if self._ended:
            raise RuntimeError("virtual_clock() was left while a call still waited in its time")

    def _pipe(self) -> WakeupPipe:
        pipe: WakeupPipe | None = getattr(self._pipes, "own", None)
        if pipe is None:
            pipe = self._pipes.own = WakeupPipe()
        return pipe

    # ---- moving ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to move the time."""
        self._driver.start()

    def end(self) -> None:
        """Stop the time; a call that still waits raises."""
        with self._change:
            self._ended = True
            for wait in self._participants.waits.values():
                wait.wake()
            self._change.notify_all()
        self._driver.join()

    def _drive(self) -> None:
        """Jump whenever all participants wait."""
        check_seconds, still_since = MIN_CHECK_SECONDS, time.monotonic()
        with self._change:
            while not self._ended:
                moment = self._participants.earliest() if self.autojump else None
                if moment is None:
                    self._change.wait(PATIENCE_SECONDS)
                    check_seconds, still_since = MIN_CHECK_SECONDS, time.monotonic()
                    continue
                obstacle = self._participants.obstacle(self._now, self._check_again)
                if obstacle is None:
                    self._move_to(moment)
                    check_seconds, still_since = MIN_CHECK_SECONDS, time.monotonic()
                elif obstacle and time.monotonic() - still_since > PATIENCE_SECONDS:
                    self._warn(obstacle)
                    still_since = math.inf
                if not self._change.wait(check_seconds):
                    check_seconds = min(check_seconds * 1.2, MAX_CHECK_SECONDS)
                else:
                    check_seconds = MIN_CHECK_SECONDS

    def _check_again(self, first: Callable[[], None]) -> None:
        with self._change:
            first()
            self._change.notify_all()

    def _move_to(self, moment: float) -> None:
        self._now = max(self._now, moment)
        for wait in self._participants.waits.values():
            if wait.until is not None and wait.until <= moment:
                wait.wake()

    def _warn(self, obstacle: str) -> None:
        logger.warning(
            "localconc: the virtual clock stands still at %g s because %s. It jumps when all threads and tasks that "
            "use localconc wait in it or for one another; clock.advance() moves it by hand.",
            self.elapsed,
            obstacle,
        )


class WakeupPipe:
    """Wakes one waiting thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """End the present wait of the thread, or else its next one."""
        with suppress(OSError):
            self._writer.send(b".")

    def drain(self) -> None:
        """Forget earlier calls of `wake`."""
        with suppress(OSError):
            while self._reader.recv(64):
                pass

    def wait(self, mailbox_fd: int | None, watched_fd: int | None) -> None:
        """Sleep until `wake`, or until a descriptor is readable; without a mailbox to watch, for a moment only."""
        with selectors.DefaultSelector() as selector:
            for source in (self._reader, mailbox_fd, watched_fd):
                if source is not None:
                    selector.register(source, selectors.EVENT_READ)
            selector.select(QUICK_POLL_SECONDS if mailbox_fd is None else None)

    def __del__(self) -> None:
        self._reader.close()
        self._writer.close()


def _refuse_other_processes() -> None:
    engine = registry.current("virtual_clock()")
    others = set(engine.membership.living_others()) - slots.helpers - {os.getpid()}
    if others:
        raise RuntimeError(
            f"virtual_clock() moves the time of this process (pid {os.getpid()}) only, but other processes use "
            f"{engine.directory} as well (pids {', '.join(map(str, sorted(others)))}): it is for one process alone."
        )


_in_force = threading.Lock()


def virtual_clock(autojump: bool = True) -> Block[VirtualClock]:
    """Let time inside the engine stand still, and jump when all of this process waits.

    Code that takes 100 slots at one a second finishes in milliseconds, and `clock.elapsed` says how long it would have
    taken. Time-outs and pauses of limits follow this clock, too, for threads and for tasks.

    >>> with virtual_clock() as clock:
    ...     for _ in range(100):
    ...         rate_limit("api", limit=5, slot_decay_per_second=1)
    >>> clock.elapsed
    95.0

    The clock jumps to the earliest moment that a call of localconc waits for, as soon as every living thread and task
    that has used localconc in the block waits. A thread or a task waits if it

    - is inside a call of localconc, or
    - waits for another thread or task by the means of the standard library: a thread in `join`, `Future.result`,
      `Queue.get`, or `wait` of an Event, a Condition or a Barrier; a task that awaits another one, `gather`, `shield`,
      a TaskGroup, `to_thread`, `run_in_executor`, a queue, an event or a lock (if the one that it awaits waits, too);
      an event loop or a pool's thread that has nothing to do.

    Everything else is work. It takes no time on this clock, but the clock does not overtake it either: while a thread
    computes, sleeps (`time.sleep`, `asyncio.sleep`) or reads from a socket, the time stands still, and no time-out
    passes before it is done. A wait for something that can't be seen counts as work: `threading.Lock`, `SimpleQueue`, a
    bare Future. If it lasts for five (real) seconds, a warning (logger `localconc`) names the thread or task at work.

    Your own limits are kept out of it: if neither `temporary_home` nor LOCALCONC_HOME names another home, the block has
    a temporary one.

    Args:
        autojump: whether the time jumps by itself; without, only `clock.advance(seconds)` moves it.

    Returns:
        A context manager whose `with` returns a `VirtualClock`; it also decorates functions and coroutine functions.

    Raises:
        RuntimeError: on entry, another one is in force. Inside: another process uses the same home, in that process or
            in the one that waits (except for `hold`, whose process only holds).
    """
    return Block(lambda: _in_virtual_time(autojump))


@contextmanager
def _in_virtual_time(autojump: bool) -> Iterator[VirtualClock]:
    if not _in_force.acquire(blocking=False):
        raise RuntimeError("virtual_clock() is in force already")
    try:
        registry.refuse_server("virtual_clock()")
        with nullcontext() if os.environ.get("LOCALCONC_HOME") else temporary_home():
            clock = VirtualClock(autojump=autojump)
            pid = os.getpid()
            registry.use_clock(clock, is_alone=True)
            clock.begin()
            try:
                with environment(registry.VIRTUAL_CLOCK, str(pid)):
                    yield clock
            finally:
                if os.getpid() == pid:  # a forked child has no thread that moves the time
                    clock.end()
                registry.use_clock(None)
    finally:
        _in_force.release()
