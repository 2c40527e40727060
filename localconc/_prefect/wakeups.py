"""A hint to those in this process who wait for slots that this process has just released.

The server calls nobody back, so whoever waits asks again after a while. Within a process that is not necessary: the
first of those who wait for a name asks at once when it comes free. Nothing depends on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Wakeups:
    """Who pauses in this process, in the order in which they began to."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._pausing: dict[int, tuple[tuple[str, ...], Callable[[], object]]] = {}

    @contextmanager
    def expected(self, names: tuple[str, ...], wake: Callable[[], object]) -> Iterator[None]:
        """Let `wake` be called, in the sending thread, when slots of one of the names come free in the block."""
        number = next(self._numbers)
        self._pausing[number] = names, wake
        try:
            yield
        finally:
            self._pausing.pop(number, None)

    def released(self, names: list[str]) -> None:
        """Wake the first one who waits for each of these names."""
        left = set(names)
        for number, (wanted, wake) in self._pausing.copy().items():
            if left.isdisjoint(wanted):
                continue
            left.difference_update(wanted)
            if self._pausing.pop(number, None) is not None:
                with suppress(RuntimeError):  # its event loop is closed
                    wake()
