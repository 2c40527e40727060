"""Hints between the calls of this process that slots may be free.

The server sends no hints, so a waiter asks it again after a while. Within a process that is not necessary: when this
process releases slots or changes a limit, it tells those of its waiters that may go on. A hint that is lost only costs
time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from localconc._prefect.asking.steps import Pause

MAX_HINTED_NAMES = 10_000


class _Waiter(NamedTuple):
    begun: float
    number: int
    names: tuple[str, ...]
    wake: Callable[[], object]


class Wakeups:
    """The waiters of this process, and the hints that they were sent.

    Attributes:
        latest: the number of the latest hint.
    """

    def __init__(self) -> None:
        self.latest = 0
        self._numbers = itertools.count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._hinted: dict[str, int] = {}
        self._dropped_up_to = 0

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def expected(self, pause: Pause, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake` called, in any thread, if a hint for this pause comes in the block or came just before it."""
        # This registers the waiter and then looks for hints; `_hint` notes the hint and then looks for waiters. So
        # whatever the order, at least one of them sees the other.
        number = next(self._numbers)
        self._waiters[number] = _Waiter(pause.begun, number, pause.names, wake)
        try:
            if any(self._hinted.get(name, self._dropped_up_to) > pause.seen for name in pause.names):
                wake()
            yield
        finally:
            self._waiters.pop(number, None)

    def released(self, names: Collection[str], slots: int) -> None:
        """Wake as many waiters for each of these names as slots were released, those that came first."""
        self._note(names)
        left = dict.fromkeys(names, slots)
        for waiter in sorted(self._waiters.copy().values()):
            wanted = [name for name in waiter.names if left.get(name)]
            for name in wanted:
                left[name] -= 1
            if wanted:
                self._wake(waiter)

    def changed(self, names: Collection[str]) -> None:
        """Wake all waiters for these names: their limits are not what they were."""
        self._note(names)
        for waiter in self._waiters.copy().values():
            if not set(names).isdisjoint(waiter.names):
                self._wake(waiter)

    def _note(self, names: Iterable[str]) -> None:
        number = next(self._numbers)
        if len(self._hinted) >= MAX_HINTED_NAMES:
            self._dropped_up_to = number
            self._hinted.clear()
        self._hinted.update(dict.fromkeys(names, number))
        self.latest = number

    def _wake(self, waiter: _Waiter) -> None:
        if self._waiters.pop(waiter.number, None) is not None:
            with suppress(RuntimeError):  # its event loop is closed
                waiter.wake()
