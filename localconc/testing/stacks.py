"""Tell from its stack whether a thread or a task waits for another one of this process.

Python does not report such a wait. So this looks at the frames of the standard library on the stack of a thread or a
task. If in doubt, the thread or task counts as busy.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import thread as pools
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Container, Coroutine, Iterator
    from types import FrameType

__all__ = ["awaited_tasks", "innermost_frame", "place", "pool_threads", "task_waits", "thread_waits"]

#: Modules whose functions call the one in which an event loop sleeps.
_LOOP_MODULES: Final = {"asyncio.base_events", "asyncio.windows_events"}

#: Where a task stands that waits for others.
_WAITING_TASK_MODULES: Final = {"asyncio.locks", "asyncio.queues", "asyncio.taskgroups"}
_WAITING_TASK_FUNCTIONS: Final = {("asyncio.tasks", "_wait"), ("asyncio.tasks", "wait_for")}

#: What a future calls back, when done, that stands for the future of a pool (`to_thread`, `run_in_executor`), or for
#: another one (`shield`).
_FUTURE_OF_POOL_CALLBACK: Final = "_chain_future.<locals>._call_check_cancel"
_SHIELD_CALLBACK: Final = "shield.<locals>._outer_done_callback"


def thread_waits(frame: FrameType, running: Container[int | None]) -> bool:
    """Return whether a thread with this frame waits for another one, and has not been woken by it already.

    Args:
        running: the idents of the threads that have a frame.
    """
    known = frame.f_locals
    match frame.f_globals.get("__name__"), frame.f_code.co_name:
        case "threading", "wait":  # of a Condition; all that waits in `threading` and `queue` stands on it
            return known.get("waiter") in getattr(known.get("self"), "_waiters", ())
        case "threading", "join" | "_wait_for_tstate_lock":
            joined = known.get("self")
            return isinstance(joined, Thread) and joined.is_alive() and joined.ident in running
        case "concurrent.futures.thread", "_worker":
            return _is_empty(known.get("work_queue"))
        case "multiprocessing.pool", "worker":
            return _is_empty(getattr(known.get("get"), "__self__", None))
        case "selectors" | "asyncio.windows_events", _:  # an event loop that has nothing to do
            return frame.f_back is not None and frame.f_back.f_globals.get("__name__") in _LOOP_MODULES
    return False


def _is_empty(queue: Any) -> bool:
    return hasattr(queue, "empty") and bool(queue.empty())


def pool_threads() -> set[Thread]:
    """Return the threads of all pools: a task that waits for one of them waits for work to be done."""
    return set(getattr(pools, "_threads_queues", ()))


def task_waits(task: Task[Any]) -> bool:
    """Return whether a task waits for others, and has not been woken by them already."""
    awaited = getattr(task, "_fut_waiter", None)
    if awaited is None or awaited.done():
        return False  # it is about to run
    if isinstance(awaited, asyncio.Task) or hasattr(awaited, "_children"):  # the latter is of a gather
        return True
    if _callback(awaited, _FUTURE_OF_POOL_CALLBACK) or _callback(awaited, _SHIELD_CALLBACK):
        return True
    innermost = innermost_frame(task)
    if innermost is None:
        return False
    module = innermost.f_globals.get("__name__")
    return module in _WAITING_TASK_MODULES or (module, innermost.f_code.co_name) in _WAITING_TASK_FUNCTIONS


def awaited_tasks(task: Task[Any]) -> list[Task[Any]]:
    """Return the tasks that a suspended one waits for, as far as its frames tell."""
    awaited = getattr(task, "_fut_waiter", None)
    futures = [awaited, *getattr(awaited, "_children", ())]
    shield = _callback(awaited, _SHIELD_CALLBACK)
    if shield is not None:
        futures.append(inspect.getclosurevars(shield).nonlocals.get("inner"))
    innermost = innermost_frame(task)
    if innermost is not None:
        known = innermost.f_locals
        match innermost.f_globals.get("__name__"), innermost.f_code.co_name:
            case "asyncio.tasks", "_wait":
                futures += known.get("fs", ())
            case "asyncio.tasks", "wait_for":
                futures.append(known.get("fut"))
            case "asyncio.taskgroups", "__aexit__" | "_aexit":
                futures += getattr(known.get("self"), "_tasks", ())
    return [future for future in futures if isinstance(future, asyncio.Task)]


def _callback(future: Any, qualified_name: str) -> Callable[..., Any] | None:
    """Return what a future calls when it is done, by its name; None if it calls nothing of this name."""
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == qualified_name:
            return callback  # type: ignore[no-any-return]
    return None


def innermost_frame(task: Task[Any]) -> FrameType | None:
    """Return the frame in which a suspended task stands; None if it has none that can be seen."""
    frames = list(_awaiting_frames(task))
    return frames[-1] if frames else None


def _awaiting_frames(task: Task[Any]) -> Iterator[FrameType | None]:
    """Yield the frames of a suspended task, from its own to the innermost."""
    coroutine: Coroutine[Any, Any, Any] | None = task.get_coro()  # type: ignore[assignment]
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            if hasattr(coroutine, f"{kind}_frame"):
                yield getattr(coroutine, f"{kind}_frame")
                coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                break
        else:
            return


def place(frame: FrameType) -> str:
    """Describe a frame for a message."""
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
