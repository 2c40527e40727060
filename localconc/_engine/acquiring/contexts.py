"""The numbers by which this process tells its threads from its tasks.

Python gives the identity of a thread or task that has ended to a later one. That one would be taken for the holder of a
block that the earlier one left for others to exit, and would be refused for a deadlock that is none. So each thread and
each task gets a number of its own, which never returns in this process.
"""

from __future__ import annotations

import sys
import threading
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Collection

_numbers = count(1)


class _Thread(threading.local):
    def __init__(self) -> None:
        self.number = next(_numbers)


_thread = _Thread()
_tasks: WeakKeyDictionary[Task[Any], int] = WeakKeyDictionary()


def of_task(task: Task[Any] | None) -> int:
    """Return the number of a task; the running thread's if there is none."""
    if task is None:
        return _thread.number
    number = _tasks.get(task)
    if number is None:
        number = _tasks[task] = next(_numbers)
    return number


def of_caller() -> int:
    """Return the number of the running task, or of the thread if it runs none.

    A block of `localconc.sync` in a coroutine is held by the task: it lasts while the task awaits, and other tasks run.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or _running_loop() is None:
        return _thread.number
    return of_task(asyncio.current_task())


def running() -> tuple[int, ...]:
    """Return the numbers of the running thread and of the task that it runs, if there is one."""
    own, caller = _thread.number, of_caller()
    return (own,) if own == caller else (own, caller)


def stopped_by_caller(holding: Collection[int]) -> list[int]:
    """Return what holds something and stops while the running thread waits: the thread, and all tasks of its loop."""
    stopped = [_thread.number]
    loop = _running_loop()
    if loop is not None:
        known = map(_tasks.get, sys.modules["asyncio"].all_tasks(loop))
        stopped += [number for number in known if number is not None]
    return [number for number in stopped if number in holding]


def _running_loop() -> AbstractEventLoop | None:
    find = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # another thread may be importing it
    loop: AbstractEventLoop | None = None if find is None else find()
    return loop
