"""How the tasks of one event loop share its time: they are let through a few at a time, and the loop turns in between.

A task that goes its steps holds the loop up for as long as they take. Ten thousand that start at once, or are admitted
at once, or find the store busy at once, must not do so all in one turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Handle

    from localconc._engine.wakeup import Signal

#: How much of its time a loop gives away before whoever comes next has to wait for its next turn.
MOST_SECONDS_A_TURN = 0.001

#: How many are let through in one turn: a transaction each, about a tenth of a millisecond.
MOST_TASKS_A_TURN = 4

#: Pauses shorter than this are turns of the loop: its timers count whole milliseconds.
SHORTEST_TIMER_SECONDS = 0.0005


class Pace(threading.local):
    """How long this thread's loop has been held up since somebody last waited for its next turn.

    While there is a line, this is infinite: whoever comes joins it, however little they have to do.
    """

    held_up_seconds = 0.0


pace = Pace()


class Arrival:
    """What one task waits for: an `asyncio.Event` for one, at a fifth of its weight. Of the loop's thread only."""

    __slots__ = ("_future", "_is_set", "signals")

    def __init__(self) -> None:
        self._is_set = False
        self.signals: list[Signal] | None = None
        self._future: Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> list[Signal] | None:
        """Wait anew; returns the signals that came with the last time."""
        self._is_set = False
        signals, self.signals = self.signals, None
        return signals

    async def wait(self) -> None:
        if not self._is_set:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None


class Line:
    """Arrivals in order, let through a few in each turn of the loop; or one by one, while it is all but closed."""

    def __init__(self, loop: AbstractEventLoop, pace: Pace | None = None) -> None:
        self._loop = loop
        self._pace = pace
        self._arrivals: OrderedDict[Arrival, None] = OrderedDict()
        self._next: Handle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._arrivals)

    def join(self, arrival: Arrival, *, first: bool = False) -> None:
        """Wait to be let through."""
        self._arrivals[arrival] = None
        if first:
            self._arrivals.move_to_end(arrival, last=False)
        if self._pace is not None:
            self._pace.held_up_seconds = inf
        self._go_on()

    def leave(self, arrival: Arrival) -> None:
        """Having been let through, or not waiting any longer. Whoever finds the store still busy closes it again."""
        self._arrivals.pop(arrival, None)
        if self._is_closed:
            self._is_closed = False
            if self._next is not None:
                self._next.cancel()
                self._next = None
        self._go_on()

    def close(self, seconds: float) -> None:
        """Let nobody through for so long, and then one to see whether all can go on."""
        if self._next is not None:
            self._next.cancel()
        self._is_closed = True
        if seconds < SHORTEST_TIMER_SECONDS:
            self._next = self._loop.call_soon(self._let_through)
        else:
            self._next = self._loop.call_later(seconds, self._let_through)

    def _go_on(self) -> None:
        if self._arrivals and self._next is None and not self._is_closed and not self._loop.is_closed():
            self._next = self._loop.call_soon(self._let_through)

    def _let_through(self) -> None:
        self._next = None
        for _ in range(min(1 if self._is_closed else MOST_TASKS_A_TURN, len(self._arrivals))):
            self._arrivals.popitem(last=False)[0].set()
        if not self._arrivals and self._pace is not None:
            self._pace.held_up_seconds = 0.0
        self._go_on()
