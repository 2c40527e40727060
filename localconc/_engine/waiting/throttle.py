"""The throttle by which tasks share their event loop: only a few take a step in each iteration.

A step holds up the loop for as long as it lasts. Ten thousand tasks may start, be admitted, or find the store busy at
the same time, and must not all take a step in one iteration.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Handle

    from localconc._engine.waiting.mailboxes.mailbox import Wakeup

#: After a loop has spent this long on steps, the next task waits for the next iteration.
MAX_SECONDS_AN_ITERATION: Final = 0.001

#: How many tasks take a step in one iteration: each runs a transaction of about a tenth of a millisecond.
MAX_TASKS_AN_ITERATION: Final = 4

#: A shorter pause is one iteration of the loop, because its timers count whole milliseconds.
MIN_TIMER_SECONDS: Final = 0.0005


class LoopBudget(threading.local):
    """How much time this thread's loop has spent on steps since a task last waited for the next iteration.

    It is infinite while tasks are queued, so that a new task joins the queue.
    """

    used_seconds = 0.0


loop_budget = LoopBudget()


class TaskEvent:
    """An event for one task, used in the loop's thread only; it takes a fifth of the memory of an `asyncio.Event`."""

    __slots__ = ("_future", "_is_set", "wakeups")

    def __init__(self) -> None:
        self._is_set = False
        self.wakeups: list[Wakeup] | None = None
        self._future: Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def clear(self) -> list[Wakeup] | None:
        """Clear the event, and return the wakeups that came with it."""
        self._is_set = False
        wakeups, self.wakeups = self.wakeups, None
        return wakeups

    async def wait(self) -> None:
        if not self._is_set:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None


class LoopThrottle:
    """A queue of events, of which it sets a few in each iteration of the loop.

    While the throttle is closed, because the store is busy, it sets one event at a time, whose task tries.
    """

    def __init__(self, loop: AbstractEventLoop, budget: LoopBudget | None = None) -> None:
        self._loop = loop
        self._budget = budget
        self._events: OrderedDict[TaskEvent, None] = OrderedDict()
        self._next: Handle | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._events)

    def join(self, event: TaskEvent, *, first: bool = False) -> None:
        """Queue an event, to be set in its order."""
        self._events[event] = None
        if first:
            self._events.move_to_end(event, last=False)
        if self._budget is not None:
            self._budget.used_seconds = inf
        self._schedule()

    def leave(self, event: TaskEvent) -> None:
        """Forget an event whose task continues, and open the throttle. If the store is still busy, it closes again."""
        self._events.pop(event, None)
        if self._is_closed:
            self._is_closed = False
            if self._next is not None:
                self._next.cancel()
                self._next = None
        self._schedule()

    def close(self, seconds: float) -> None:
        """Set no event for a while, and then one."""
        if self._next is not None:
            self._next.cancel()
        self._is_closed = True
        if seconds < MIN_TIMER_SECONDS:
            self._next = self._loop.call_soon(self._pass_some)
        else:
            self._next = self._loop.call_later(seconds, self._pass_some)

    def _schedule(self) -> None:
        if self._events and self._next is None and not self._is_closed and not self._loop.is_closed():
            self._next = self._loop.call_soon(self._pass_some)

    def _pass_some(self) -> None:
        self._next = None
        for _ in range(min(1 if self._is_closed else MAX_TASKS_AN_ITERATION, len(self._events))):
            self._events.popitem(last=False)[0].set()
        if not self._events and self._budget is not None:
            self._budget.used_seconds = 0.0
        self._schedule()
