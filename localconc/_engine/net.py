"""The net under every acquisition: slots whose holder has come to its end without giving them back are given back.

An interrupt can strike anywhere: inside the handler that cleans up after another one, even in a finalizer, and more
than once. So this is not code that runs as an object dies: it is a weak reference to it with a callback that is C all
the way until another thread has started, where no signal's exception strikes.
"""

from __future__ import annotations

from _thread import start_new_thread
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable


class Claim:
    """An acquisition that is under way: lost if it comes to its end before somebody has the slots, or has undone it."""

    __slots__ = ("__weakref__",)


class Nets(dict[int, "ref[object]"]):
    """Nets by the number of the acquisition; take one out when there is nothing (more) to give back.

    Args:
        collect: called in a new thread when something was lost.
    """

    def __init__(self, collect: Callable[[], None]) -> None:
        super().__init__()
        spring = staticmethod(partial(start_new_thread, collect, ()))
        self._net = type("Net", (ref,), {"__slots__": (), "spring": spring})
        self._when_lost = methodcaller("spring")

    def guard(self, serial: int, anchor: object) -> None:
        """See to it that an acquisition is given back when an object has come to its end; no longer another one."""
        self[serial] = self._net(anchor, self._when_lost)

    def take_lost(self) -> list[int]:
        """The acquisitions whose objects have come to their end, each once."""
        lost = [serial for serial, net in list(self.items()) if net() is None]
        return [serial for serial in lost if self.pop(serial, None) is not None]
