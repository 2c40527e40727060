"""The finalizers of acquisitions, which release slots whose handle is collected without a release.

An interrupt can strike anywhere and more than once, even in a finalizer, or in the handler that cleans up after another
interrupt. So no Python code runs when a handle is collected: the callback of a weak reference is C code until it has
started another thread, in which no signal's exception strikes. Three things keep it in C: the subclass of `ref` has no
`__init__`, its `start` is C, and `methodcaller` calls that.
"""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable


class Finalizers(dict[int, "ref[object]"]):
    """Finalizers by the serial of the acquisition. Pop one when there is nothing (more) to release.

    To attach one: `finalizers[serial] = finalizers.reference(handle, finalizers.start)`.

    Args:
        start: called after a handle was collected; it is C, and starts a thread that releases what is lost.
    """

    def __init__(self, start: Callable[[], object]) -> None:
        super().__init__()
        attributes = {"__slots__": (), "start": staticmethod(start)}
        self.reference: type[ref[object]] = type("Finalizer", (ref,), attributes)
        self.start = methodcaller("start")

    def release_in_caller(self, release: Callable[[], None]) -> None:
        """From now on, call a function in the thread that drops a handle, because Python starts no threads any more.

        The main thread has ended, so no signal's exception can strike.
        """
        self.reference.start = staticmethod(release)  # type: ignore[attr-defined]

    def lost(self) -> list[int]:
        """Return the serials whose handles were collected."""
        return [serial for serial, reference in list(self.items()) if reference() is None]
