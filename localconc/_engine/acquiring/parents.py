"""Warnings for a waiter whose parent task or parent process holds the slots, because that may wait for it."""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from localconc._engine.core.arguments import printable
from localconc._engine.queue.deadlocks import label_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from localconc._engine.core.records import LimitRef
    from localconc._engine.store.rows.listings import HolderEntry

    #: The limits that are waited for, the parents, and the moment.
    _Check = tuple[Sequence[LimitRef], frozenset[int], float]

#: How many ancestors of a task are remembered.
MAX_ANCESTORS: Final = 8

#: After this long, a waiter checks whether the holder is the process or the task that started it; and if another one is
#: to check at the same time.
FIRST_AFTER_SECONDS: Final = 1.0
LATER_AFTER_SECONDS: Final = 30.0

#: Of the waiters that are to check within this time, wait for the same and have the same parents, one checks.
EVERY_SECONDS: Final = 0.1

#: The tasks that use limits, from the oldest ancestor to the running one. A task begins with a copy of its parent's.
_tasks: ContextVar[tuple[int, ...]] = ContextVar("localconc_tasks", default=())


def note_task(context: int) -> None:
    """Note that the running task uses limits, for the tasks and threads that it starts."""
    tasks = _tasks.get()
    if not tasks or tasks[-1] != context:
        _tasks.set((*tasks[-MAX_ANCESTORS:], context))


def parent_tasks(context: int) -> frozenset[int]:
    """Return the tasks that may wait for a thread or task, the running one."""
    return frozenset(_tasks.get()) - {context}


def possible_parents(context: int) -> tuple[frozenset[int], set[int]]:
    """Return the tasks that may wait for the running thread or task, and the pids of the processes that may.

    Args:
        context: the waiting thread or task.
    """
    pids = {os.getpid(), os.getppid()}
    processes = sys.modules.get("multiprocessing.process")  # it knows the real parent behind a fork server
    parent = None if processes is None else processes.parent_process()
    if parent is not None:
        pids.add(parent.pid)
    return parent_tasks(context), pids


class ParentChecks:
    """Tells the waiters of this process when to check whether their parents hold what they wait for.

    Hundreds that wait for the same may begin together, and have the same parents. Then one of them checks for all. Each
    of the others checks later: the one may leave before.
    """

    def __init__(self) -> None:
        self._planned: _Check | None = None
        self._done: _Check | None = None

    def plan(
        self, refs: Sequence[LimitRef], tasks: frozenset[int], begun: float, deadline: float | None
    ) -> float | None:
        """Return when a waiter is to check; None if its time is up before.

        Args:
            refs: the limits that it waits for.
            tasks: its parents.
            begun: when it began to wait.
        """
        moment = begun + FIRST_AFTER_SECONDS
        if deadline is not None and deadline <= moment:
            return None
        if _is_like(self._planned, refs, tasks, moment):
            return begun + LATER_AFTER_SECONDS
        self._planned = refs, tasks, moment
        return moment

    def begin(self, refs: Sequence[LimitRef], tasks: frozenset[int], now: float) -> bool:
        """Return whether a waiter that is to check now has to: another one may just have done so."""
        if _is_like(self._done, refs, tasks, now):
            return False
        self._done = refs, tasks, now
        return True


def _is_like(check: _Check | None, refs: Sequence[LimitRef], tasks: frozenset[int], moment: float) -> bool:
    return check is not None and check[:2] == (refs, tasks) and check[2] <= moment < check[2] + EVERY_SECONDS


def warning_of_parent(entries: Iterable[HolderEntry], owner_id: int, context: int) -> tuple[str, str] | None:
    """Return the name of a limit and a warning, if one of its holders may be waiting for the running thread or task.

    Args:
        entries: the holders that a request waits for.
        owner_id: this process.
        context: the waiting thread or task.
    """
    tasks, pids = possible_parents(context)
    for entry in entries:
        label = label_text(entry.label)
        if entry.owner_id == owner_id and entry.context in tasks:
            who = f"{printable(entry.thread)}{label}, the task that started this one"
        elif entry.owner_id != owner_id and entry.pid in pids:
            who = f"pid {entry.pid} ({printable(entry.command)}){label}, the process that started this one"
        else:
            continue
        return entry.name, (
            f"localconc: a call has waited for a second for {entry.name!r}, which is held by {who}. If that waits for "
            "this one to end, both wait forever: let it release the slots first, or take the limit in one of them only."
        )
    return None
