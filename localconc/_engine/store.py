"""The ledger of one home, turn by turn, and this process's membership in it, from opening to closing."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from localconc._engine import admission, journal, owners
from localconc._engine.database import Database
from localconc._engine.definitions import define
from localconc._engine.faults import Busy, Damaged
from localconc._engine.ledger import Ledger
from localconc._engine.model import Hold, Party, Share
from localconc._engine.schema import NEVER_BOOTED
from localconc._engine.turn import Turn
from localconc._engine.wakeup import Post
from localconc.errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from localconc._engine.clock import Clock

logger = logging.getLogger("localconc")

Result = TypeVar("Result")

#: Owners that a new process looks at, to clear up after dead ones.
OWNERS_SWEPT = 64


class Store:
    """One home, in this process.

    Attributes:
        held: what this process holds, by its own number of the acquisition.
        is_parents: whether this is what a forked child has of its parent's, and must leave alone.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.database = Database(directory, self._after_opening, self._other_users)
        self.owner: owners.Owner | None = None
        self.owner_id = 0
        self.held: dict[int, Hold] = {}
        self.is_parents = False
        self._known: dict[str, Share] = {}  # limits for the short way: enforced, without decay, not crowded
        self._answered: list[int] = []  # tickets of waiters whose rows have served
        self._warned: set[tuple[str, str]] = set()
        self._post = Post(directory)

    # ---- transactions ----------------------------------------------------------------------------------------

    def in_turn(self, work: Callable[[Turn], Result]) -> Result:
        """Do some work in a write transaction on the ledger; once it has committed, those concerned are told."""

        def whole_turn(connection: sqlite3.Connection) -> tuple[Turn, list[int], Result]:
            turn = Turn(Ledger(connection), self.clock.now(), self.clock.wall())
            result = work(turn)
            return turn, self._conclude(turn), result

        turn, answered, result = self.database.write(whole_turn)
        self._announce(turn, answered)
        return result

    def look_up(self, work: Callable[[Ledger], Result]) -> Result:
        """Do some work on a consistent look at the ledger, without changing it."""
        return self.database.read(lambda connection: work(Ledger(connection)))

    def _conclude(self, turn: Turn) -> list[int]:
        """The last things before the commit; returns the tickets whose rows have served."""
        if turn.changed or turn.unsettled:
            admission.settle(turn)
        answered = [] if turn.signals else self._answered.copy()  # not while somebody sleeps until the commit
        turn.ledger.delete_waiters(answered, self.owner_id)
        if turn.definitions:
            journal.append(self.directory, turn.definitions)
        return answered

    def _announce(self, turn: Turn, answered: list[int]) -> None:
        """The first things after the commit."""
        if turn.signals:
            self._post.send(turn.signals)
        for ticket in answered:
            with suppress(ValueError):
                self._answered.remove(ticket)
        if turn.definitions:
            self._known.clear()
            self.database.make_durable()
        for kind, name, message in turn.warnings:
            if (kind, name) not in self._warned:
                self._warned.add((kind, name))
                logger.warning(message)

    def _other_users(self) -> list[int]:
        return owners.living_pids(self.directory, self.owner.key if self.owner else "")

    def reap(self, owner: owners.OwnerRow) -> None:
        """Give back everything that a dead process held or waited for."""

        def work(turn: Turn) -> bool:
            if turn.ledger.owner(owner.id) not in (owner, None):
                return False  # it became the command that it started, meanwhile
            admission.reap(turn, owner)
            return True

        if self.in_turn(work):
            owners.remove_file(self.directory, owner)

    def become_command(self, pid: int, command: str) -> None:
        """Let what this process holds be held by a command that it started, for as long as that lives."""
        self.in_turn(lambda turn: turn.ledger.become_command(self.owner_id, pid, owners.started(pid), command))

    # ---- opening, closing, forking -----------------------------------------------------------------------------

    def _after_opening(self) -> None:
        """Make this process known to the store: as the owner it was, or as a new one."""
        if self.owner is None:
            try:
                self.owner = owners.Owner(self.directory)
            except OSError as error:
                raise StoreError(
                    f"No file can be created in {self.directory} ({error.strerror}): make the directory and its "
                    "subdirectory owners writable, leave some space, or set LOCALCONC_HOME to another directory."
                ) from error
        self.owner.ensure_file()
        owner = self.owner
        owner_id, rebooted = self.look_up(lambda ledger: (ledger.owner_with_key(owner.key), self._was_rebooted(ledger)))
        if owner_id is not None and not rebooted:
            self.owner_id = owner_id
            return
        self.in_turn(lambda turn: self._register(turn, owner))
        self._sweep()

    def _was_rebooted(self, ledger: Ledger) -> bool:
        boot = self.clock.boot_identity()
        if not boot:  # the system does not tell; but a clock that starts anew shows it
            return ledger.latest_moment() > self.clock.now()
        return ledger.meta("boot_identity") != boot

    def _recognise_reboot(self, turn: Turn) -> None:
        if turn.ledger.meta("boot_identity") == NEVER_BOOTED:
            self._restore_definitions(turn)
        elif self._was_rebooted(turn.ledger):
            admission.after_reboot(turn)
        turn.ledger.set_meta("boot_identity", self.clock.boot_identity())

    def _restore_definitions(self, turn: Turn) -> None:
        """Rebuild the definitions of a new store from those beside it."""
        from uuid import UUID

        for name, fields in journal.replay(self.directory).items():
            if turn.ledger.limit_named(name) is None:
                define(
                    turn,
                    name,
                    limit=int(fields["limit"]),
                    active=bool(fields["active"]),
                    configured=True,
                    decay=float(fields["slot_decay_per_second"]),
                    identity=UUID(fields["id"]),
                    created=float(fields["created"]),
                )
        turn.definitions.clear()  # they come from there

    def _register(self, turn: Turn, owner: owners.Owner) -> None:
        self._recognise_reboot(turn)
        self.owner_id = turn.ledger.insert_owner(owner)
        turn.ledger.forget_past_limits()
        journal.rewrite_if_long(self.directory, turn.ledger.definitions)
        self._known.clear()
        for serial, hold in self.held.items():  # taken in a store that was replaced under this process
            self.held[serial] = admission.take_along(turn, hold, Party(self.owner_id, serial, hold.thread))

    def _sweep(self) -> None:
        """Clear up after dead processes; a few at a time, so that starting stays quick among many."""
        rows = self.look_up(lambda ledger: ledger.owners_after(0))
        for row in rows[:OWNERS_SWEPT]:
            if row.id != self.owner_id and not owners.is_alive(self.directory, row):
                self.reap(row)

    def heal(self) -> None:
        """Set a damaged store aside, so that the next use builds a new one with the definitions of the old."""
        aside = self.database.heal()
        if aside is not None:
            logger.warning(
                "The database %s was damaged. It was set aside as %s and built anew with the definitions it had.",
                self.database.path,
                aside,
            )

    def close(self) -> None:
        """At the end of the process: leave nothing behind in the store, if it can be done at once."""
        owner = self.owner
        if owner is None or owner.pid != os.getpid():
            return
        self._post.close()
        with suppress(Busy, Damaged, StoreError):
            if self.database.connection is not None and not self.held and not self.database.was_moved():
                self.in_turn(self._take_leave)
                owner.retire()
                self.owner = None
            self.database.close()

    def _take_leave(self, turn: Turn) -> None:
        for waiter in turn.ledger.waiters_of(self.owner_id):  # of threads that end with the process
            admission.withdraw(turn, waiter.ticket, self.owner_id)
        turn.ledger.delete_owner(self.owner_id)

    def before_fork(self) -> None:
        """No connection crosses a fork, and nobody is inside a transaction while it happens."""
        self.database.lock.acquire()
        self.database.close()

    def after_fork_in_parent(self) -> None:
        self.database.lock.release()

    def after_fork_in_child(self) -> None:
        """Let go of everything that is the parent's; this engine is used no more."""
        if self.owner is not None:
            self.owner.abandon()
        self.owner_id = -1
        self.is_parents = True
        self.database.lock = threading.RLock()  # the parent's was taken for the fork
        self._post.close()
