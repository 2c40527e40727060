"""Transactions on the ledger: the work of one, with the effects that follow its commit."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from localconc._engine.core import rules
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.store import definitions_log
from localconc._engine.store.database import Database
from localconc._engine.store.files import checkpoints
from localconc._engine.store.rows.ledger import Ledger
from localconc.errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from localconc._engine.core.clock import Clock
    from localconc._engine.store.files.lost_logs import OtherProcesses

Result = TypeVar("Result")

#: How long waiters spare looks at a store in which nothing is committed. The next look may notice a process that was
#: stopped meanwhile, after it was granted slots and before it has picked them up.
MAX_SPARED_SECONDS: Final = 10.0

#: How long the first in line spares looks: it also looks for deaths of holders that no watch tells.
OWN_SPARED_SECONDS: Final = 1.2


class Transaction:
    """One write transaction: the ledger at one moment, and the effects that follow its commit.

    Attributes:
        now: the time by the boot clock, for arithmetic.
        wall: the time by the wall clock, for people.
        admitted: address, serial and secret of each waiter that was admitted.
        to_wake: address and serial of each waiter that is to look at the store.
        warnings: owner, kind, name of a limit and message of each warning.
        definitions: entries for the log of definitions, which are written before the commit.
        is_durable: whether an operator declared a definition, which has to survive a power loss.
        touched_limits: limits that an operator changed, whose queues are reevaluated before the commit.
        deleted_tickets: waiters of this process whose rows were deleted, because it has accepted their outcomes.
        stale_tickets: waiters whose limits changed, which are reevaluated before the commit as if they had just called.
    """

    def __init__(self, ledger: Ledger, now: float, wall: float) -> None:
        self.ledger = ledger
        self.now = now
        self.wall = wall
        self.admitted: list[tuple[str, int, int]] = []
        self.to_wake: list[tuple[str, int]] = []
        self.warnings: list[tuple[int, str, str, str]] = []
        self.definitions: list[dict[str, Any]] = []
        self.is_durable = False
        self.touched_limits: list[int] = []
        self.stale_tickets: list[int] = []
        self.deleted_tickets: list[int] = []

    def admit_next(self, limit_id: int) -> bool:
        """Admit the first waiter of a limit by the fast statement; return whether the rules may admit more waiters."""
        admitted = self.ledger.admit_first(limit_id, self.wall, self.now)
        if admitted is None:
            return self.ledger.has_queue(limit_id)
        free, waiter = admitted
        self.admitted.append(waiter)
        return free > 0

    def set_empty_at(self, limit_id: int, empty_at: float | None) -> None:
        """Record when a decaying limit will be empty, by both clocks; None for a limit without decay."""
        by_wall = None if empty_at is None else self.wall + (empty_at - self.now)
        self.ledger.set_empty_at(limit_id, empty_at, by_wall)

    def release(self, limit_id: int, owner_id: int, serial: int) -> bool:
        """Release the slots of a holder that have not drained; return False if it holds none of the limit."""
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
    """Transactions on the database of one home, with the effects that follow a commit.

    Args:
        directory: the home.
        clock: what time it is.
        on_open: called after each opening of the database, before any other use of it.
        on_opened: called after that, when the store is in use; must not raise.
        reevaluate: called before the commit of a transaction in which limits changed: answers their waiters.
        announce: called after the commit of a transaction that concerns others; must not raise.
        others: the other processes that use the home.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        on_open: Callable[[], None],
        on_opened: Callable[[], None],
        reevaluate: Callable[[Transaction], None],
        announce: Callable[[Transaction], None],
        others: OtherProcesses,
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._reevaluate = reevaluate
        self.announce = announce
        self._accepted: set[int] = set()  # tickets of waiters whose rows the next transaction deletes
        self.database = Database(directory, on_open, on_opened, others)

    def transact(self, work: Callable[[Transaction], Result], note: Callable[[Result], None] | None = None) -> Result:
        """Do some work in a write transaction; after its commit the effects follow.

        Args:
            note: called with the result after the commit, before another thread can make this process join another
                store; must not block.

        Raises:
            Busy: another process is writing; nothing was done.
        """
        return self.transact_with_effects(work, note)[0]

    def transact_with_effects(
        self, work: Callable[[Transaction], Result], note: Callable[[Result], None] | None = None
    ) -> tuple[Result, Transaction]:
        """Do the same as `transact`; return the result with the transaction, which lists the effects."""
        with self.database.lock:
            txn, result = self.database.transact("BEGIN IMMEDIATE", self._decide, work)
            if note is not None:
                note(result)
        self.announce(txn)
        if txn.is_durable:
            with suppress(Busy):  # the log of definitions is on the disk already
                self.database.maintain(checkpoints.checkpoint)
        return result, txn

    def read(self, work: Callable[[Ledger], Result]) -> Result:
        """Read the ledger in one consistent transaction, without changing it."""
        return self.database.transact("BEGIN", _look, work)

    def _decide(
        self, connection: sqlite3.Connection, work: Callable[[Transaction], Result]
    ) -> tuple[Transaction, Result]:
        txn = Transaction(Ledger(connection), self._clock.now(), self._clock.wall())
        result = work(txn)
        if txn.touched_limits or txn.stale_tickets:
            self._reevaluate(txn)
        for ticket in tuple(self._accepted):
            txn.ledger.delete_waiter(ticket)
            txn.deleted_tickets.append(ticket)
        if txn.definitions:
            definitions_log.append(self.directory, txn.definitions, is_durable=txn.is_durable)
        return txn, result

    def is_usable(self) -> bool:
        """Return whether the database is open and in its place, or could be opened now."""
        try:
            self.database.ensure_open()
        except (Busy, Damaged, StoreError):
            return False
        return True

    def delete_later(self, ticket: int) -> None:
        """Let the next transaction delete the row of a waiter, which has accepted its outcome."""
        self._accepted.add(ticket)

    def forget_accepted(self, tickets: Iterable[int] | None = None) -> None:
        """Forget rows that a transaction has deleted; None for all, after this process joined another store."""
        if tickets is None:
            self._accepted.clear()
        else:
            self._accepted.difference_update(tickets)

    # ---- opening ---------------------------------------------------------------------------------------------

    def transact_while_opening(self, work: Callable[[Transaction], Result]) -> Result:
        """Do some work in a write transaction before the store is in use; only for `on_open`."""
        txn, result = self.database.transact_while_opening("BEGIN IMMEDIATE", self._decide, work)
        self.announce(txn)
        return result

    def read_while_opening(self, work: Callable[[Ledger], Result]) -> Result:
        """Read the ledger before the store is in use; only for `on_open`."""
        return self.database.transact_while_opening("BEGIN", _look, work)


class SparedLooks:
    """Spares looks at a store in which nothing was committed since a look that found nothing to do.

    What only time or a death changes must not depend on it.

    >>> if not spared.may_spare(now):
    ...     state = store.database.state()
    ...     spared.looked(now, state, MAX_SPARED_SECONDS if look(store) == NOTHING_TO_DO else 0.0)
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look_at = 0.0
        self._state: bytes | None = None

    def may_spare(self, now: float) -> bool:
        """Return whether to spare the look that is due now."""
        state, database = self._state, self._store.database
        if state is None or now >= self._look_at:
            return False
        is_in_place = database.has_its_files() and database.is_claim_in_place()
        return (is_in_place or self._store.is_usable()) and database.state() == state

    def looked(self, now: float, state: bytes | None, spare_seconds: float) -> None:
        """Note the state of the store as it was before a look, and how long to spare the next ones."""
        self._state, self._look_at = state, now + spare_seconds


def _look(connection: sqlite3.Connection, work: Callable[[Ledger], Result]) -> Result:
    return work(Ledger(connection))
