"""A thread that uses the database while it is inside it already: in a signal handler or a finalizer."""

from __future__ import annotations

import sqlite3
import sys
from typing import TYPE_CHECKING

from localconc._engine.core.errors import shown
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType
    from typing import Any

    from localconc._engine.store.files.anchors import Anchors


class InterruptedUses(list["tuple[sqlite3.Connection, Anchors | None]"]):
    """Connections, with their anchors, that this thread was using as its own signal handler, or finalizer, forked.

    A fork closes the connection. But these are used further after the handler, and to close their anchors would drop
    SQLite's locks in the middle of a transaction. So they are closed at the next use of the database.
    """

    def has(self, connection: sqlite3.Connection) -> bool:
        """Return whether a connection is among them."""
        return any(each is connection for each, _ in self)

    def note(
        self, connections: list[sqlite3.Connection], anchors: Anchors | None, being_opened: sqlite3.Connection | None
    ) -> bool:
        """Note the one of some connections that is in use; return whether they must not be closed now."""
        try:
            in_use = next((each for each in connections if each.in_transaction), being_opened)
        except sqlite3.ProgrammingError:  # a handler of a signal forked at this moment, which closed them
            return True
        if in_use is not None:
            self.append((in_use, anchors))
        return in_use is not None

    def take(self) -> Iterator[tuple[sqlite3.Connection, Anchors | None]]:
        """Return the connections, whose uses have ended, each once."""
        while self:
            yield self.pop()


def is_interrupted(instance: object, method: Callable[..., Any]) -> bool:
    """Return whether this thread is inside a method of an object, below the call of it that asks.

    A lock can't tell: this very thread holds it, and may take it again.
    """
    code = method.__code__
    frame: FrameType | None = sys._getframe(4)  # above are `_verified`, `_ready`, and the method that asks
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is instance:
            return True
        frame = frame.f_back
    return False


def used_from_handler(path: Path, what: str) -> StoreError:
    """Return the error for a handler that used the database.

    Args:
        what: what the handler interrupted.
    """
    return StoreError(
        f"A signal handler or finalizer used the database {shown(path)} while it interrupted {what}: set a flag in the "
        "handler, and use limits outside it."
    )
