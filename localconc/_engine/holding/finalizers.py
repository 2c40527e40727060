"""The finalizers of acquisitions: slots whose handle is collected without a release are released in the background.

An interrupt can strike anywhere: inside the handler that cleans up after another one, even in a finalizer, and more
than once. So no Python code runs as a handle dies: a weak reference to it has a callback that is C all the way until
another thread has started, where no signal's exception strikes. These three keep the path in C: the subclass of `ref`
has no `__init__`, its `start` is a `partial` of `start_new_thread`, and `methodcaller` calls that.
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
    """Finalizers by the serial of the acquisition; pop one when there is nothing (more) to release.

    To attach one: `finalizers[serial] = finalizers.reference(handle, finalizers.start)`.

    Args:
        on_lost: called in a new thread when a handle was collected.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        super().__init__()
        start = staticmethod(partial(start_new_thread, on_lost, ()))
        self.reference: type[ref[object]] = type("Finalizer", (ref,), {"__slots__": (), "start": start})
        self.start = methodcaller("start")

    def release_in_caller(self, release: Callable[[], None]) -> None:
        """From now on, call a function in the very thread that loses a handle: no new one can be started any more.

        The main thread has ended, so no signal's exception can strike there.
        """
        self.reference.start = staticmethod(release)  # type: ignore[attr-defined]

    def lost(self) -> set[int]:
        """Return the serials whose handles were collected, and that nobody has taken yet."""
        return {serial for serial, reference in list(self.items()) if reference() is None}

    def take_lost(self) -> list[int]:
        """Return the serials whose handles were collected, each once."""
        lost = [serial for serial, reference in list(self.items()) if reference() is None]
        return [serial for serial in lost if self.pop(serial, None) is not None]
