"""Who uses the engine while a test moves the time, and which of them have nothing left to do but wait.

A thread or task waits if it is inside a call of localconc, or waits for another thread or task of this process by the
means of the standard library. Everything else is work, be it computing, `time.sleep` or reading from a socket: nobody
can tell how long it should take in a time that does not pass.
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

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Container, Coroutine, Iterator
    from types import FrameType

#: For so long nothing must have moved before a thread counts as waiting for another one: it may just have been woken.
QUIET_SECONDS = 0.003

#: The same where somebody has a mailbox that nobody can write to, and looks at the store now and then.
QUIET_SECONDS_WITHOUT_SIGNALS = 0.15

#: Turns that a loop must have made with nothing to do; one whose lists can't be seen must make more.
IDLE_TURNS = 2
IDLE_TURNS_UNSEEN = 20

#: Where a task stands that waits for others.
_WAITING_TASK_MODULES = {"asyncio.locks", "asyncio.queues", "asyncio.taskgroups", "asyncio.threads"}
_WAITING_TASK_FUNCTIONS = {("asyncio.tasks", "_wait"), ("asyncio.tasks", "wait_for")}

#: Threads of `asyncio.to_thread`: a task that waits for one of them waits for work to be done.
_LOOP_THREADS_PREFIX = "asyncio_"


OnIdle: TypeAlias = "Callable[[Callable[[], None]], None]"


@dataclass(eq=False)
class Wait:
    """One thread or task inside a call of localconc.

    Attributes:
        until: the moment it waits for, besides a signal; None if there is none.
        wake: makes it look.
        mailbox_descriptor: readable while a signal is there that it has not seen; None if it gets none.
        loop: of a task.
    """

    until: float | None
    wake: Callable[[], None]
    mailbox_descriptor: int | None = None
    loop: AbstractEventLoop | None = None


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
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            if threading.get_ident() not in self._threads:
                self._threads.add(threading.get_ident())
                self._move()
            return
        task = asyncio.current_task(loop)
        if task is not None and task not in self._tasks:
            self._tasks[task] = loop
            self._loop_threads[loop] = threading.get_ident()
            self._move()

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
        loops = self._running_loops()
        for judge in (self._working_thread, self._working_task):
            obstacle = judge(set(loops.values()))
            if obstacle is not None:
                return obstacle
        idle, self._idle = self._idle, WeakKeyDictionary()
        unknown = [loop for loop in loops if idle.get(loop) != self._generation]
        for loop in unknown:
            if self._probed.get(loop) != self._generation:  # one at a time: two would keep each other busy
                self._probed[loop] = self._generation
                with suppress(RuntimeError):  # it was closed meanwhile
                    loop.call_soon_threadsafe(self._probe, loop, self._generation, 0, on_idle)
        return "" if unknown else None

    def _has_mail(self) -> bool:
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

    def _working_thread(self, loop_threads: set[int]) -> str | None:
        frames = sys._current_frames()
        self._threads &= frames.keys()
        quiet_seconds = 0.0
        threads = {thread.ident: thread.name for thread in threading.enumerate()}
        users = self._threads | {ident for ident, name in threads.items() if ident and self._serves_loop(name)}
        for ident in users - loop_threads:
            wait = self.waits.get(ident)
            frame = frames.get(ident)
            if wait is None and frame is not None and not _thread_waits(frame, frames):
                return f"thread {threads.get(ident, ident)!r} is at work in {_place(frame)}"
            if wait is None:
                quiet_seconds = max(quiet_seconds, QUIET_SECONDS)
            elif wait.mailbox_descriptor is None:
                quiet_seconds = QUIET_SECONDS_WITHOUT_SIGNALS
        return "" if time.monotonic() - self._moved_at < quiet_seconds else None

    def _serves_loop(self, thread_name: str) -> bool:
        return bool(self._tasks) and thread_name.startswith(_LOOP_THREADS_PREFIX)

    def _working_task(self, _: set[int]) -> str | None:
        for task in list(self._tasks):
            if task not in self.waits and not task.done() and self._tasks[task].is_running() and not _task_waits(task):
                frames = [frame for frame in _awaiting_frames(task) if frame is not None]
                place = f" in {_place(frames[-1])}" if frames else ""
                return f"task {task.get_name()!r} is at work{place}"
        return None

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


# ---- single threads and tasks ----------------------------------------------------------------------------------------


def _thread_waits(frame: FrameType, alive: Container[int | None]) -> bool:
    """Whether a thread that stands there waits for another one, and has not been woken by it already."""
    known = frame.f_locals
    match frame.f_globals.get("__name__"), frame.f_code.co_name:
        case "threading", "wait":  # of a Condition; all that waits in `threading` and `queue` stands on it
            return known.get("waiter") in getattr(known.get("self"), "_waiters", ())
        case "threading", "join" | "_wait_for_tstate_lock":
            return getattr(known.get("self"), "ident", None) in alive
        case "concurrent.futures.thread", "_worker":
            return _is_empty(known.get("work_queue"))
        case "multiprocessing.pool", "worker":
            return _is_empty(getattr(known.get("get"), "__self__", None))
        case "selectors", _:  # an event loop that has nothing to do
            return frame.f_back is not None and frame.f_back.f_globals.get("__name__") == "asyncio.base_events"
    return False


def _is_empty(tasks: Any) -> bool:
    return hasattr(tasks, "empty") and bool(tasks.empty())


def _task_waits(task: Task[Any]) -> bool:
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None or awaited.done():
        return False  # it is about to run
    if isinstance(awaited, asyncio.Task) or type(awaited).__name__ == "_GatheringFuture":
        return True
    innermost = None
    for frame in _awaiting_frames(task):
        innermost = frame
    if innermost is None:
        return False
    module = innermost.f_globals.get("__name__")
    return module in _WAITING_TASK_MODULES or (module, innermost.f_code.co_name) in _WAITING_TASK_FUNCTIONS


def _awaiting_frames(task: Task[Any]) -> Iterator[FrameType | None]:
    """The frames of a suspended task, from its own to the innermost."""
    coroutine: Coroutine[Any, Any, Any] | None = task.get_coro()  # type: ignore[assignment]
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            if hasattr(coroutine, f"{kind}_frame"):
                yield getattr(coroutine, f"{kind}_frame")
                coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
