"""The threads and tasks that use the engine while a test moves the time.

A participant counts as busy unless it is inside a localconc call or waits for another thread or task. It may compute,
sleep or read from a socket, and the clock can't know how long that should take.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from localconc._engine.core.clock import InPassing
from localconc.testing.stacks import awaited_tasks, innermost_frame, place, pool_threads, task_waits, thread_waits

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Iterable
    from threading import Thread
    from types import FrameType

    from localconc._engine.waiting.mailboxes.mailbox import Mailbox

#: A thread counts as waiting for another one once nothing has moved for this long: it may just have been woken.
QUIET_SECONDS: Final = 0.003

#: Iterations in which a loop must have had nothing to do; a loop whose ready callbacks can't be seen needs more.
IDLE_ITERATIONS: Final = 3
IDLE_ITERATIONS_UNSEEN: Final = 20

_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)

OnIdle: TypeAlias = "Callable[[Callable[[], None]], None]"


@dataclass(eq=False)
class Wait:
    """One thread or task inside a call of localconc.

    Attributes:
        until: the moment it waits for, besides a wakeup; None if there is none.
        wake: makes it look at the store.
        mailbox: where it receives wakeups; None for a task, whose loop receives them.
    """

    until: float | None
    wake: Callable[[], None]
    mailbox: Mailbox | None = None


@dataclass
class Participants:
    """All threads and tasks that use the engine. The owner of this object holds one lock around every call.

    Attributes:
        waits: those inside a call: by the ident of the thread, or by the task.
    """

    waits: dict[Any, Wait] = field(default_factory=dict)
    _threads: WeakSet[Thread] = field(default_factory=WeakSet)
    _tasks: WeakKeyDictionary[Task[Any], AbstractEventLoop] = field(default_factory=WeakKeyDictionary)
    _loop_threads: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _idle: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _probed: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _generation: int = 0
    _moved_at: float = 0.0

    # ---- what they do ----------------------------------------------------------------------------------------

    def note(self) -> None:
        """Note that the running thread or task uses the engine."""
        self._move()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._threads.add(threading.current_thread())  # not its ident, which a later thread may get
            return
        task = asyncio.current_task(loop)
        if task is not None:
            self._tasks[task] = loop
            self._loop_threads[loop] = threading.get_ident()

    def begin(self, participant: Any, wait: Wait) -> None:
        """Note that a participant begins to wait."""
        self.waits[participant] = wait
        self._move()

    def end(self, participant: Any) -> None:
        """Note that a participant waits no more."""
        self.waits.pop(participant, None)
        self._move()

    def _move(self) -> None:
        self._generation += 1
        self._moved_at = time.monotonic()

    # ---- whether they all wait -------------------------------------------------------------------------------

    def earliest(self) -> float | None:
        """Return the first moment that time is to come to; None if no participant waits for any."""
        moments = [wait.until for wait in self.waits.values() if wait.until is not None]
        return None if all(isinstance(moment, InPassing) for moment in moments) else min(moments)

    def obstacle(self, now: float, on_idle: OnIdle) -> str | None:
        """Return which participant is busy, in words; "" if it is too early to tell; None if all of them wait.

        Args:
            on_idle: called in the thread of a loop that has nothing to do, with a function that the owner calls under
                its lock before it asks again.
        """
        if any(wait.until is not None and wait.until <= now for wait in self.waits.values()) or self._has_wakeups():
            return ""
        frames = sys._current_frames()
        loops = self._running_loops()
        obstacle = self._busy_thread(frames, set(loops.values()))
        if obstacle is None:
            obstacle = self._busy_task()
        if obstacle is None and not all(self._is_idle(loop, frames.get(loops[loop]), on_idle) for loop in loops):
            obstacle = ""
        return obstacle

    def _has_wakeups(self) -> bool:
        """Return whether a thread has a wakeup that it has not seen."""
        mailboxes = [wait.mailbox for wait in self.waits.values() if wait.mailbox is not None]
        return any(mailbox.has_wakeups for mailbox in mailboxes) or _is_any_readable(
            mailbox.descriptor for mailbox in mailboxes
        )

    def _running_loops(self) -> dict[AbstractEventLoop, int]:
        return {
            loop: self._loop_threads[loop]
            for loop in {self._tasks[task] for task in list(self._tasks) if not task.done()}
            if loop.is_running()
        }

    def _busy_thread(self, frames: dict[int, FrameType], loop_threads: set[int]) -> str | None:
        quiet_seconds = 0.0
        for thread in set(self._threads) | (pool_threads() if self._tasks else set()):
            ident = thread.ident
            frame = None if ident is None else frames.get(ident)
            if not thread.is_alive() or frame is None or ident in loop_threads or ident in self.waits:
                continue
            if not thread_waits(frame, frames):
                return f"thread {thread.name!r} is at work in {place(frame)}"
            quiet_seconds = QUIET_SECONDS
        return "" if time.monotonic() - self._moved_at < quiet_seconds else None

    def _busy_task(self) -> str | None:
        """Return which task is busy, of those that use the engine and those that such a task awaits."""
        seen: set[Task[Any]] = set()
        pending = [task for task, loop in list(self._tasks.items()) if loop.is_running()]
        while pending:
            task = pending.pop()
            if task in seen or task in self.waits or task.done():
                continue
            seen.add(task)
            if not task_waits(task):
                frame = innermost_frame(task)
                return f"task {task.get_name()!r} is at work{f' in {place(frame)}' if frame else ''}"
            pending.extend(awaited_tasks(task))
        return None

    # ---- event loops -----------------------------------------------------------------------------------------

    def _is_idle(self, loop: AbstractEventLoop, frame: FrameType | None, on_idle: OnIdle) -> bool:
        """Return whether a loop had nothing to do when it was probed, and has received nothing since."""
        if self._idle.get(loop) == self._generation:
            ready = getattr(loop, "_ready", None)
            if ready is None:
                return True
            return not ready and frame is not None and thread_waits(frame, ()) and not _has_input(loop)
        if self._probed.get(loop) != self._generation:  # one at a time: two would keep each other busy
            self._probed[loop] = self._generation
            with suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(self._probe, loop, self._generation, 0, on_idle)
        return False

    def _probe(self, loop: AbstractEventLoop, generation: int, idle_iterations: int, on_idle: OnIdle) -> None:
        """Run in the loop, iteration after iteration, until it did nothing else for some of them."""
        if self._generation != generation:
            return
        ready = getattr(loop, "_ready", None)
        idle_iterations = 0 if ready else idle_iterations + 1
        if idle_iterations < (IDLE_ITERATIONS_UNSEEN if ready is None else IDLE_ITERATIONS):
            loop.call_soon(self._probe, loop, generation, idle_iterations, on_idle)
            return
        on_idle(partial(self._found_idle, loop, generation))

    def _found_idle(self, loop: AbstractEventLoop, generation: int) -> None:
        if self._probed.get(loop) == generation:
            del self._probed[loop]
            self._idle[loop] = generation


def _has_input(loop: AbstractEventLoop) -> bool:
    """Return whether something that a loop watches is readable, such as the mailbox of its tasks."""
    selector = getattr(loop, "_selector", None)
    try:
        return _is_any_readable([selector.fileno()])  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return False  # only epoll and kqueue have a descriptor, which is readable if one of theirs is


def _is_any_readable(descriptors: Iterable[int | None]) -> bool:
    with _Selector() as selector:
        for descriptor in set(descriptors):
            if descriptor is not None:
                selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.get_map()) and bool(selector.select(0))
