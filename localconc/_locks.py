"""Locks that an interrupt can't leave taken, loops that it can't leave without their `finally`, locks for forks."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict, deque
from functools import partial
from itertools import compress, repeat
from operator import call
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: For `for`, in place of `while True` inside `try` or `with`: on Python 3.12 and 3.13, what a signal handler raises at
#: the jump back of a `while` passes by its `except`, its `finally`, and its `__exit__`. The same goes for a `for` that
#: ends with an `if`, so no such loop stands inside the `with` of a lock, but in a function that is called there.
ENDLESSLY: Final = repeat(None)


class InterruptibleLock(type(threading.RLock())):  # type: ignore[misc]
    """A reentrant lock for `with` blocks, on which a KeyboardInterrupt may strike at any moment.

    Up to Python 3.13, no signal handler runs between the taking of a lock and its `with` block. Since 3.14, one may:
    the call of `__enter__` is an instruction of its own, with a look for signals behind it. What the handler raises
    there would leave the lock taken, and the other threads would wait forever. Behind a function that is written in
    Python, there is no such look; in front of one there is, so `__exit__` has to be C.
    """

    def __enter__(self) -> bool:
        taken: list[bool] = []
        try:
            taken.extend(map(call, (self.acquire,)))  # all of it is C: nothing comes between the lock and its note
        except BaseException:
            if taken:
                self.release()
            raise
        return True


def new_lock() -> threading.RLock:
    """Return a reentrant lock that an interrupt can't leave taken."""
    return InterruptibleLock() if sys.version_info >= (3, 14) else threading.RLock()


def lock_of_process(locks: dict[int, threading.RLock]) -> threading.RLock:
    """Return the lock of this very process: a fork, of which no hook may tell, copies locks that stay taken for ever.

    Args:
        locks: those of the processes that this one was forked from, and its own.
    """
    pid = os.getpid()
    return locks.get(pid) or locks.setdefault(pid, new_lock())


def is_used_by_others(lock: Any, *, is_late: bool) -> bool:
    """Return whether a thread that a fork did not copy has a lock, in the child.

    Args:
        is_late: whether this is not the moment of the fork. A thread that began since may have the number of one that
            is gone, so that a lock of that one seems to be its own.
    """
    if (is_late and lock._is_owned()) or not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


class ForkLocks:
    """Locks that a thread holds while it forks, so that no other thread is in the middle of what they protect.

    A signal handler may fork in the middle of a hook of another fork. So each fork has a record of its own locks. And a
    handler may raise there: Python then leaves out the rest of the hook, even all of it, but forks. So the hooks that
    begin a record, and that release its locks, are C throughout: in Python, no handler runs before they are through.
    """

    def __init__(self) -> None:
        records: defaultdict[int, list[list[Callable[[], object]]]] = defaultdict(list)  # by thread, innermost last
        of_thread = map(records.__getitem__, map(call, repeat(get_ident)))  # each `next`: the records of this thread
        releases = map(map, repeat(call), map(list.pop, of_thread))  # each: calls for all of the innermost record
        self._records = records
        self._begin = partial(next, map(list.append, of_thread, map(list, repeat(()))))  # append an empty record
        self._release_all = partial(next, map(deque, releases, repeat(0)))  # make all calls, keep no result

    def take(self, lock: Any, timeout: float = -1) -> None:
        """Hold a lock until the fork that this thread has begun is over; no further one if it holds that already."""
        taken = self._records[get_ident()][-1]
        if lock.release not in taken:
            acquire = partial(lock.acquire, timeout=timeout)
            taken.extend(compress((lock.release,), map(call, (acquire,))))  # in one step, as in `InterruptibleLock`

    def register(
        self,
        take_all: Callable[[], None],
        before: Callable[[], None] | None,
        after_in_child: Callable[[], None],
    ) -> None:
        """Let hooks run at each fork that Python sees.

        Args:
            take_all: calls `take` with each lock. It is called again for as long as handlers raise.
            before: called with the locks held, unless a handler raises.
            after_in_child: called after the release of the locks.
        """
        if not hasattr(os, "register_at_fork"):
            return

        def take_all_at_last() -> None:
            raised = None
            for _ in ENDLESSLY:
                try:
                    take_all()
                    break
                except BaseException as error:  # only handlers raise here
                    raised = error
            if raised is not None:
                raise raised  # Python reports it, and forks

        # Python calls the hooks before a fork in reverse order, the others in order.
        os.register_at_fork(after_in_parent=self._release_all, after_in_child=self._release_all)
        os.register_at_fork(after_in_child=after_in_child)
        if before is not None:
            os.register_at_fork(before=before)
        os.register_at_fork(before=take_all_at_last)
        os.register_at_fork(before=self._begin)
