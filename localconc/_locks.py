"""Locks that an interrupt can't leave taken, loops that it can't leave without their `finally`."""

from __future__ import annotations

import sys
import threading
from itertools import repeat
from operator import call
from typing import Final

#: For `for`, in place of `while True` inside `try` or `with`: on Python 3.12 and 3.13, what a signal handler raises at
#: the jump back of a `while` passes by its `except`, its `finally`, and its `__exit__`.
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
