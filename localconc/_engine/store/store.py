"""The ledger in transactions: what one of them decides, and what has to happen around its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from localconc._engine.core import rules
from localconc._engine.core.errors import Busy
from localconc._engine.store import definitions_log
from localconc._engine.store.database import Database
from localconc._engine.store.ledger import Ledger

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from localconc._engine.core.clock import Clock

Result = TypeVar("Result")


class Transaction:
    """One write transaction: the ledger at one moment, and the effects that follow its commit.

    Attributes:
        now: the clock since boot, for arithmetic.
        wall: the wall clock, for people.
        admitted: owner, serial, address, secret, and seconds waited of each request that was admitted.
        told: owner, serial and address of waiters that have to look at the store.
        warnings: owner, kind, name of a limit and message for each call that has to be warned.
        definitions: entries for the log of definitions, written before the commit.
        is_durable: whether a definition was declared, which has to survive a power loss.
        touched_limits: limits whose definition or occupation was changed by hand: their queues are to be served.
        accepted: tickets of this process's waiters whose rows have served and are deleted.
        stale_tickets: waiters whose limits changed: they are to be answered as if they had just called.
    """

    __slots__ = (
        "accepted",
        "admitted",
        "definitions",
        "is_durable",
        "ledger",
        "now",
        "stale_tickets",
        "told",
        "touched_limits",
        "wall",
        "warnings",
    )

    def __init__(self, ledger: Ledger, now: float, wall: float) -> None:
        self.ledger = ledger
        self.now = now
        self.wall = wall
        self.admitted: list[tuple[int, int, str, int, float]] = []
        self.told: list[tuple[int, int, str]] = []
        self.warnings: list[tuple[int, str, str, str]] = []
        self.definitions: list[dict[str, Any]] = []
        self.is_durable = False
        self.touched_limits: list[int] = []
        self.stale_tickets: list[int] = []
        self.accepted: tuple[int, ...] = ()

    def set_empty_at(self, limit_id: int, empty_at: float | None) -> None:
        """Record when a decaying limit will be empty, by both clocks; None for a limit without decay."""
        by_wall = None if empty_at is None else self.wall + (empty_at - self.now)
        self.ledger.set_empty_at(limit_id, empty_at, by_wall)

    def release(self, limit_id: int, owner_id: int, serial: int) -> bool:
        """Release what a holder occupies of a limit, without what has drained; return False if it holds nothing."""
        if self.ledger.release(limit_id, owner_id, serial, self.now):
            return True
        held = self.ledger.holder(limit_id, owner_id, serial)
        if held is None:
            return False
        slots, drained_at = held
        assert drained_at is not None
        row = self.ledger.limit_with_id(limit_id)
        assert row is not None
        seconds = rules.undrained_seconds(drained_at, self.now, slots, row.decay)
        if seconds > 0:
            self.set_empty_at(limit_id, row.empty_at - seconds)
            self.ledger.drain_sooner(limit_id, drained_at, seconds)
        return self.ledger.release_draining(limit_id, owner_id, serial, self.now)


class Store:
    """The database of one home, in transactions.

    Args:
        directory: the home.
        clock: what time it is.
        on_open: called after each opening of the database, before anything else uses it.
        before_commit: called with each transaction before its commit.
        after_commit: called with each transaction after its commit; must not raise.
        living_users: tells which other living processes use the home.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        on_open: Callable[[], None],
        before_commit: Callable[[Transaction], None],
        after_commit: Callable[[Transaction], None],
        living_users: Callable[[], list[int]],
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._before_commit = before_commit
        self._after_commit = after_commit
        self.database = Database(directory, clock, on_open, living_users)

    def transact(self, work: Callable[[Transaction], Result]) -> Result:
        """Do some work in a write transaction; after its commit the effects follow.

        Raises:
            Busy: another process is writing; nothing was done.
        """
        txn, result = self.database.write(lambda connection: self._decide(connection, work))
        self._follow_up(txn)
        return result

    def read(self, work: Callable[[Ledger], Result]) -> Result:
        """Do some work on a consistent look at the ledger, without changing it."""
        return self.database.read(lambda connection: work(Ledger(connection)))

    def transact_while_opening(self, work: Callable[[Transaction], Result]) -> Result:
        """Do some work in a write transaction before the store is in use; only for `on_open`."""
        txn, result = self.database.transact_while_opening(
            "BEGIN IMMEDIATE", lambda connection: self._decide(connection, work)
        )
        self._after_commit(txn)
        return result

    def read_while_opening(self, work: Callable[[Ledger], Result]) -> Result:
        """Do some work on the ledger before the store is in use; only for `on_open`."""
        return self.database.transact_while_opening("BEGIN", lambda connection: work(Ledger(connection)))

    def _decide(self, connection: sqlite3.Connection, work: Callable[[Transaction], Result]) -> tuple[Transaction, Result]:
        txn = Transaction(Ledger(connection), self._clock.now(), self._clock.wall())
        result = work(txn)
        self._before_commit(txn)
        if txn.definitions:
            definitions_log.append(self.directory, txn.definitions, is_durable=txn.is_durable)
        return txn, result

    def _follow_up(self, txn: Transaction) -> None:
        if txn.is_durable:
            self.database.make_durable()
        self._after_commit(txn)

    @property
    def file_identity(self) -> object:
        """What tells the open file from any other one."""
        return self.database.file_identity

    def rebuild(self) -> Path | None:
        """Set a damaged store aside, so that the next use builds a new one with the definitions of the old.

        Returns:
            Where the damaged file lies now; None if another process did it meanwhile.
        """
        return self.database.rebuild()

    def is_usable(self) -> bool:
        """Whether the store is open, or can be opened at once."""
        try:
            self.database.ensure_open()
        except Busy:
            return False
        return True
