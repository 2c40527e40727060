"""The finalizers of acquisitions, which release slots whose handle is collected without a release.

An interrupt can strike anywhere and more than once, even in a finalizer, or in the handler that cleans up after another
interrupt. So no Python code runs when a handle is collected: the callback of a weak reference is C code until it has
started another thread, in which no signal's exception strikes. Three things keep it in C: the subclass of `ref` has no
`__init__`, its `start` is a `partial` of `start_new_thread`, and `methodcaller` calls that.
"""

from __future__ import annotations

from _thread import start_new_thread
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable


class Finalizers(dict[int, "ref[object]"]):
    """Finalizers by the serial of the acquisition. Pop one when there is nothing (more) to release.

    To attach one: `finalizers[serial] = finalizers.reference(handle, finalizers.start)`.

    Args:
        on_lost: called in a new thread after a handle was collected.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__()
        start = staticmethod(partial(start_new_thread, on_lost, ()))
        self.reference: type[ref[object]] = type("Finalizer", (ref,), {"__slots__": (), "start": start})
        self.start = methodcaller("start")

    def release_in_caller(self, release: Callable[[], None]) -> None:
        """From now on, call a function in the thread that drops a handle, because Python starts no threads any more.

        The main thread has ended, so no signal's exception can strike.
        """
        self.reference.start = staticmethod(release)  # type: ignore[attr-defined]

    def lost(self) -> list[int]:
        """Return the serials whose handles were collected."""
        return [serial for serial, reference in list(self.items()) if reference() is None]
