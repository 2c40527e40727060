"""Who uses the engine while a test moves the time, and which of them have nothing left to do but wait.

Whoever is not inside a call of localconc, nor waits for another one, is at work, be it computing, `time.sleep` or
reading from a socket: nobody can tell how long that should take in a time that does not pass.
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
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from localconc.testing.waiting import awaited_tasks, innermost_frame, place, pool_threads, task_waits, thread_waits

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from types import FrameType

    from localconc._engine.waiting.mailbox import Mailbox

#: For so long nothing must have moved before a thread counts as waiting for another one: it may just have been woken.
QUIET_SECONDS = 0.003

#: Turns that a loop must have made with nothing to do; one whose lists can't be seen must make more.
IDLE_TURNS = 2
IDLE_TURNS_UNSEEN = 20

OnIdle: TypeAlias = "Callable[[Callable[[], None]], None]"


@dataclass(eq=False)
class Wait:
    """One thread or task inside a call of localconc.

    Attributes:
        until: the moment it waits for, besides a signal; None if there is none.
        wake: makes it look.
        mailbox: where it receives wakeups; None if it receives none.
    """

    until: float | None
    wake: Callable[[], None]
    mailbox: Mailbox | None = None

    @property
    def mailbox_descriptor(self) -> int | None:
        """Readable while another process's wakeup is there that it has not seen."""
        return None if self.mailbox is None else self.mailbox.descriptor


@dataclass
class Crowd:
    """Everybody who uses the engine. Its owner holds one lock around every call."""

    waits: dict[Any, Wait] = field(default_factory=dict)
    _threads: set[int] = field(default_factory=set)
    _tasks: WeakKeyDictionary[Task[Any], AbstractEventLoop] = field(default_factory=WeakKeyDictionary)
    _loop_threads: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _idle: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _probed: WeakKeyDictionary[AbstractEventLoop, int] = field(default_factory=WeakKeyDictionary)
    _generation: int = 0
    _moved_at: float = 0.0

    # ---- what they do ----------------------------------------------------------------------------------------

    def note(self) -> None:
        """The running thread or task uses the engine."""
        self._move()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._threads.add(threading.get_ident())
            return
        task = asyncio.current_task(loop)
        if task is not None:
            self._tasks[task] = loop
            self._loop_threads[loop] = threading.get_ident()

    def begin(self, who: Any, wait: Wait) -> None:
        self.waits[who] = wait
        self._move()

    def end(self, who: Any) -> None:
        self.waits.pop(who, None)
        self._move()

    def _move(self) -> None:
        self._generation += 1
        self._moved_at = time.monotonic()

    # ---- whether they all wait -------------------------------------------------------------------------------

    def earliest(self) -> float | None:
        """The first moment that somebody waits for."""
        return min((wait.until for wait in self.waits.values() if wait.until is not None), default=None)

    def obstacle(self, now: float, on_idle: OnIdle) -> str | None:
        """Who does not wait, in words; empty where it is too early to tell; None if everybody waits.

        Args:
            on_idle: called, in the thread of a loop that turned out to have nothing to do, with what is to be called
                under the owner's lock before it asks again.
        """
        if any(wait.until is not None and wait.until <= now for wait in self.waits.values()) or self._has_mail():
            return ""
        frames = sys._current_frames()
        loops = self._running_loops()
        obstacle = self._working_thread(frames, set(loops.values()))
        if obstacle is None:
            obstacle = self._working_task()
        if obstacle is None and not all(self._is_idle(loop, frames.get(loops[loop]), on_idle) for loop in loops):
            obstacle = ""
        return obstacle

    def _has_mail(self) -> bool:
        if any(wait.mailbox is not None and wait.mailbox.has_wakeups for wait in self.waits.values()):
            return True
        with selectors.DefaultSelector() as selector:
            for wait in self.waits.values():
                if wait.mailbox_descriptor is not None and wait.mailbox_descriptor not in selector.get_map():
                    selector.register(wait.mailbox_descriptor, selectors.EVENT_READ)
            return bool(selector.get_map()) and bool(selector.select(0))

    def _running_loops(self) -> dict[AbstractEventLoop, int]:
        return {
            loop: self._loop_threads[loop]
            for loop in {self._tasks[task] for task in list(self._tasks) if not task.done()}
            if loop.is_running()
        }

    def _working_thread(self, frames: dict[int, FrameType], loop_threads: set[int]) -> str | None:
        self._threads &= frames.keys()
        quiet_seconds = 0.0
        users = self._threads | (pool_threads() if self._tasks else set())
        for ident in users - loop_threads:
            wait = self.waits.get(ident)
            frame = frames.get(ident)
            if wait is None and frame is not None and not thread_waits(frame, frames):
                names = {thread.ident: thread.name for thread in threading.enumerate()}
                return f"thread {names.get(ident, ident)!r} is at work in {place(frame)}"
            if wait is None:
                quiet_seconds = max(quiet_seconds, QUIET_SECONDS)
        return "" if time.monotonic() - self._moved_at < quiet_seconds else None

    def _working_task(self) -> str | None:
        """Of those who use the engine, or are awaited by one who does."""
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

    def _is_idle(self, loop: AbstractEventLoop, frame: FrameType | None, on_idle: OnIdle) -> bool:
        """Whether a loop had nothing to do when it was asked, and was given nothing since."""
        if self._idle.get(loop) == self._generation:
            ready = getattr(loop, "_ready", None)
            return ready is None or (not ready and frame is not None and thread_waits(frame, ()))
        if self._probed.get(loop) != self._generation:  # one at a time: two would keep each other busy
            self._probed[loop] = self._generation
            with suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(self._probe, loop, self._generation, 0, on_idle)
        return False

    def _probe(self, loop: AbstractEventLoop, generation: int, idle_turns: int, on_idle: OnIdle) -> None:
        """Runs in the loop, turn after turn, until it did nothing else for some turns."""
        if self._generation != generation:
            return
        ready = getattr(loop, "_ready", None)
        idle_turns = 0 if ready else idle_turns + 1
        if idle_turns < (IDLE_TURNS_UNSEEN if ready is None else IDLE_TURNS + 1):
            loop.call_soon(self._probe, loop, generation, idle_turns, on_idle)
            return
        on_idle(partial(self._found_idle, loop, generation))

    def _found_idle(self, loop: AbstractEventLoop, generation: int) -> None:
        if self._probed.get(loop) == generation:
            del self._probed[loop]
            self._idle[loop] = generation
