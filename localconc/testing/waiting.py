"""Whether a thread or a task waits for another one of this process, by the means of the standard library.

It is told by where they stand, as nothing announces it. In doubt they don't wait.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import thread as pools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Container, Coroutine, Iterator
    from types import FrameType

__all__ = ["awaited_tasks", "innermost_frame", "place", "pool_threads", "task_waits", "thread_waits"]

#: Who calls what an event loop sleeps in.
_LOOP_MODULES = {"asyncio.base_events", "asyncio.windows_events"}

#: Where a task stands that waits for others.
_WAITING_TASK_MODULES = {"asyncio.locks", "asyncio.queues", "asyncio.taskgroups"}
_WAITING_TASK_FUNCTIONS = {("asyncio.tasks", "_wait"), ("asyncio.tasks", "wait_for")}

#: What a future calls back, when done, that stands for the future of a pool (`to_thread`, `run_in_executor`), or for
#: another one (`shield`).
_FUTURE_OF_POOL_CALLBACK = "_chain_future.<locals>._call_check_cancel"
_SHIELD_CALLBACK = "shield.<locals>._outer_done_callback"


def thread_waits(frame: FrameType, alive: Container[int | None]) -> bool:
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
        case "selectors" | "asyncio.windows_events", _:  # an event loop that has nothing to do
            return frame.f_back is not None and frame.f_back.f_globals.get("__name__") in _LOOP_MODULES
    return False


def _is_empty(tasks: Any) -> bool:
    return hasattr(tasks, "empty") and bool(tasks.empty())


def pool_threads() -> set[int]:
    """The threads of all pools: a task that waits for one of them waits for work to be done."""
    return {thread.ident for thread in list(getattr(pools, "_threads_queues", ())) if thread.ident}


def task_waits(task: Task[Any]) -> bool:
    """Whether a task waits for others, and has not been woken by them already."""
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
    """The tasks that a suspended one waits for, where it can be told."""
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
    """What a future calls when it is done, by its name."""
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == qualified_name:
            return callback  # type: ignore[no-any-return]
    return None


def innermost_frame(task: Task[Any]) -> FrameType | None:
    """Where a suspended task stands."""
    frames = list(_awaiting_frames(task))
    return frames[-1] if frames else None


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


def place(frame: FrameType) -> str:
    """Where somebody stands, for a message."""
    return f"{frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
