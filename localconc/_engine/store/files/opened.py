"""What this process has open of one store, so that nothing is closed in the wrong order, wherever an exception strikes.

A traceback may keep a connection open for as long as it likes. SQLite remembers the locks that it has got for it, and
counts on them for other connections of this process, too. But the closing of anchors drops these locks. Another process
then takes the log away, and two processes write by two different ones.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Final

from localconc._engine.store.cut_off import is_cut_off
from localconc._engine.store.files.anchors import Anchors, make_immortal
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from localconc._engine.homes.files import Identity

#: The anchors of closed connections that have to stay open, because this process has other descriptors on their store.
_kept: Final[set[Anchors]] = set()

_OPTIONS: Final = {"timeout": 0, "isolation_level": None, "check_same_thread": False, "cached_statements": 256}


class OpenFiles:
    """The connections of this process to one store, with their anchors, and which log the store had.

    Args:
        on_close: called before a log is closed.

    Attributes:
        log_generation: grows whenever the log may have been replaced. What this process wrote to that one may be lost.
    """

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self.log_generation = 0
        self._left: Identity | None = None  # the log that the store had when this process closed it, if it stayed
        self._connections: list[sqlite3.Connection] = []  # those that were not closed, and maybe some that were
        self._anchors: list[Anchors] = []
        self._taken_over = ""

    def connect(self, path: Path) -> sqlite3.Connection:
        """Connect to a database.

        Raises:
            StoreError: other files have taken over the descriptors of an earlier connection. SQLite has them still, and
                would lock those files in place of this one.
        """
        if self._taken_over:
            raise StoreError(self._taken_over)
        # Not `sqlite3.connect`: OpenTelemetry wraps what that returns, and `backup` refuses a wrapped connection.
        connect = partial(sqlite3.Connection, **_OPTIONS)  # type: ignore[arg-type]
        self._connections.extend(map(connect, (path,)))  # all of it is C: no connection is ever lost
        return self._connections[-1]

    def anchor(self, path: Path) -> Anchors:
        """Open the files of a store that was just connected to.

        Raises:
            FileNotFoundError: one of them is being replaced at this moment.
        """
        anchors = next((each for each in tuple(_kept) if each.are_at(path)), None) or Anchors(path)
        self._anchors.append(anchors)
        _kept.discard(anchors)
        anchors.open()
        if self._left not in (None, anchors.log_identity):
            self.log_generation += 1
        return anchors

    def close(self, connections: Iterable[sqlite3.Connection], anchors: Anchors | None) -> None:
        """Close connections, then the anchors of their store; remember which log it has."""
        if anchors is not None:
            self._before_closing(anchors)
        for each in connections:
            each.close()
        if anchors is not None:
            self._left = anchors.log_identity if anchors.is_log_in_place() else None
            _kept.add(anchors)
            _close_kept()

    def _before_closing(self, anchors: Anchors) -> None:
        """Drop the locks before a connection is closed, so that SQLite can remove the log after the last one.

        If another process has begun a log of its own, the locks stay until the connection is closed: without them,
        SQLite would copy the deleted log into the database, and remove the new one.
        """
        self._on_close()
        if anchors.are_in_place():
            anchors.let_go()
        else:
            self.log_generation += 1

    def close_lost(self, connection: sqlite3.Connection, anchors: Anchors) -> None:
        """Close a connection after other code has closed its descriptors.

        Raises:
            StoreError: another file has taken one of the numbers over, so the connection is never closed.
        """
        self._connections.remove(connection)
        try:
            anchors.close_lost(connection)
        except StoreError as error:
            self._taken_over = str(error)
            raise

    def close_rest(self) -> None:
        """Close what exceptions have left open; no connection is in use."""
        rest = [each for each in self._anchors if not (each.are_closed or each in _kept)]
        for anchors in rest:
            self._before_closing(anchors)
            self.log_generation += 1
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        _kept.update(rest)
        self._anchors.clear()
        _close_kept()

    def close_in_child(self) -> None:
        """Close the copies of the parent's connections, which does not touch the parent's own.

        SQLite in this process would otherwise believe that it holds the locks that only the parent holds.
        """
        if is_cut_off():
            make_immortal(self._connections)
        else:
            for connection in self._connections:
                connection.close()
        for anchors in (*self._anchors, *_kept):
            anchors.close()
        self._connections, self._anchors = [], []
        _kept.clear()


def _close_kept() -> None:
    for anchors in tuple(_kept):
        if not anchors.are_needed():
            anchors.close()
            _kept.discard(anchors)
