"""One home in this process: its parts put together, from the first use to the end."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.acquiring.acquisitions import Acquisitions
from localconc._engine.acquiring.parents import ParentChecks
from localconc._engine.acquiring.queued import QueuedRequests
from localconc._engine.core.errors import Busy, Damaged, shown
from localconc._engine.holding.holdings import Holdings
from localconc._engine.homes.home import hint_of_other_homes
from localconc._engine.liveness.membership import Membership
from localconc._engine.liveness.reaper import Reaper
from localconc._engine.liveness.watch import Watch
from localconc._engine.queue import admission
from localconc._engine.queue.admission import NOT_CONFIGURED
from localconc._engine.store.store import MAX_SPARED_SECONDS, OWN_SPARED_SECONDS, SparedLooks, Store, Transaction
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from typing import Any, Protocol

    from localconc._engine.core.clock import Clock
    from localconc._engine.liveness.owner import Owner

    class Mailboxes(Protocol):
        """The mailboxes of this process's waiters."""

        def take(self, owner: Owner) -> Any: ...
        def put(self, mailbox: Any) -> None: ...
        def wake_answered(self, queued: Collection[str]) -> None: ...
        def note_poller(self, mailbox: Any) -> None: ...
        @property
        def pollers(self) -> int: ...
        def __len__(self) -> int: ...
        def close(self) -> None: ...
        def close_in_child(self) -> None: ...

    class Notifier(Protocol):
        """Sends wakeups to waiters."""

        def send(self, wakeups: list[tuple[str, tuple[int, int, float, float]]]) -> None: ...
        def close(self) -> None: ...


logger = logging.getLogger("localconc")


class StandIn(NamedTuple):
    """What a process found as it stood in for others.

    Attributes:
        next_at: when there will be more to do, if that is known.
        spare_seconds: how long there will be nothing to do unless something is committed.
        limit_ids: the limits that it looked at.
    """

    next_at: float | None
    spare_seconds: float
    limit_ids: list[int]


class Engine:
    """One home in this process.

    Attributes:
        store: the database, in transactions.
        membership: this process as an owner in the store.
        reaper: acts for processes that are dead or stopped.
        holdings: what this process holds.
        acquisitions: acquires and releases.
        mailboxes: receive the wakeups of its waiters.
        queued: the queued requests of this process.
        spared_looks: of its waiting threads, if they are many.
        retries: the operations under way that have found the store busy.
        is_alone: whether no other process takes part, so that waiters look for no lost wakeups and no deaths.
        parent_checks: plans which waiters check whether their parents hold what they wait for.
    """

    def __init__(self, directory: Path, clock: Clock, mailboxes: Mailboxes, notifier: Notifier) -> None:
        self.directory = directory
        self.clock = clock
        self.is_alone = False
        self._pid = os.getpid()
        self.mailboxes = mailboxes
        self._notifier = notifier
        self._warned: set[tuple[str, str]] = set()
        self.parent_checks = ParentChecks()
        self._has_to_sweep = False
        self.membership = Membership(directory, clock, self._on_joined)
        self.store = Store(
            directory,
            clock,
            on_open=self._on_open,
            on_opened=self._on_opened,
            reevaluate=admission.reevaluate,
            announce=self._announce,
            others=self.membership,
        )
        self._watch = Watch(directory, clock.now)
        self.reaper = Reaper(directory, clock, self.store, self.membership, self._watch)
        self.holdings = Holdings(self.store, self.membership)
        self.acquisitions = Acquisitions(self.store, self.membership, self.holdings, clock, notifier.send)
        self.queued = QueuedRequests(self.store, self.membership, self.holdings, clock)
        self.spared_looks = SparedLooks(self.store)
        self.retries: set[object] = set()

    def __repr__(self) -> str:
        return f"<Engine of {self.directory}: holds {len(self.holdings.grants)} acquisition(s)>"

    # ---- what the parts tell each other ----------------------------------------------------------------------

    def _on_open(self) -> None:
        store = self.store
        is_new = self.membership.join(
            *store.database.identities(), store.read_while_opening, store.transact_while_opening
        )
        if is_new:
            self.reaper.forget()  # in another store, the same numbers are other processes
            self._has_to_sweep = True

    def _on_joined(self, txn: Transaction) -> None:
        """Note the slots of this process in a store that it has just joined."""
        self.store.forget_accepted()
        self.acquisitions.forget_definitions()
        lacking = self.holdings.names_lacking_in(txn)
        if lacking:  # the definitions went with a log that was removed
            self.membership.restore_definitions(txn, lacking)
        self.holdings.on_joined(txn)

    def _announce(self, txn: Transaction) -> None:
        """Send the wakeups and log the warnings of a transaction; tell the parts of this engine of its effects."""
        if txn.admitted or txn.to_wake:
            admitted = [(address, (serial, secret, txn.wall, txn.now)) for address, serial, secret in txn.admitted]
            self._notifier.send(admitted + [(address, (serial, 0, 0.0, 0.0)) for address, serial in txn.to_wake])
        if txn.deleted_tickets:
            self.store.forget_accepted(txn.deleted_tickets)
        if txn.definitions:
            self.acquisitions.forget_definitions()
        for owner_id, kind, name, message in txn.warnings:
            if owner_id == self.membership.owner_id:
                self.warn_once(kind, name, message)

    def warn_once(self, kind: str, name: str, message: str) -> None:
        """Log a warning about a limit, once for each process."""
        if (kind, name) not in self._warned:
            self._warned.add((kind, name))
            if kind == NOT_CONFIGURED and (hint := hint_of_other_homes()):
                message = f"{message} {hint}"
            logger.warning(message, extra={"localconc_kind": kind, "localconc_limit": name})

    def _on_opened(self) -> None:
        """Clean up after some dead processes, once after each joining of a store."""
        if self._has_to_sweep:
            self._has_to_sweep = False
            with suppress(Busy, Damaged, StoreError):
                self.reaper.sweep()

    def stand_in(self) -> StandIn:
        """Act for dead and stopped processes on the limits that this process waits for."""
        limit_ids, are_all = self.queued.queues()
        heads = self.queued.heads(limit_ids)
        self.reaper.watch_in_front(limit_ids, None)
        if not self.reaper.is_complete:
            self.reaper.reap_in_front(limit_ids, None)
        elif heads.own:  # a child that C code forked keeps the file of a dead holder open, so the watch tells nothing
            self.reaper.reap_in_front(heads.own, 0)
        next_at = self.act_for_stopped(limit_ids, heads.overdue)
        if next_at is not None or heads.depend_on_time or not (are_all and self.reaper.is_complete):
            return StandIn(next_at, 0.0, limit_ids)
        return StandIn(None, OWN_SPARED_SECONDS if heads.own else MAX_SPARED_SECONDS, limit_ids)

    def act_for_stopped(self, limit_ids: list[int], overdue: list[int]) -> float | None:
        """Act for stopped processes on some limits; return when there will be more to do, None if nothing is known.

        Args:
            overdue: the limits whose first waiter could be admitted already, but its process does not act.
        """
        self.reaper.pass_over_stopped(limit_ids)
        pass_over_at = self.reaper.next_pass_over(limit_ids)
        due_at = self.queued.admit_overdue(overdue) if overdue else None  # the next one may be stopped, too
        return min((each for each in (pass_over_at, due_at) if each is not None), default=None)

    # ---- a damaged store -------------------------------------------------------------------------------------

    def rebuild(self) -> None:
        """Set a damaged store aside, so that the next use builds a new one with the definitions of the old."""
        aside = self.store.database.rebuild()
        if aside is not None:
            logger.warning(
                "localconc: the database %s was damaged. It was set aside as %s and rebuilt with its definitions.",
                shown(self.store.database.path),
                shown(aside),
            )

    # ---- the end, and forks ----------------------------------------------------------------------------------

    def become_command(self, pid: int, command: str) -> None:
        """Let a command that this process started hold its slots, until the command ends."""
        self.store.transact(lambda txn: self.membership.become_command(txn, pid, command))

    def close(self) -> None:
        """Take this process out of the store at its end, unless the store is busy."""
        if self.is_of_another_process():
            return
        with suppress(Busy, Damaged, StoreError), self.store.database.lock:
            try:
                if self.membership.owner is not None and not self.store.database.was_moved():
                    self.holdings.release_all_lost()
                    self._leave()
            finally:
                self.holdings.forget_all()  # the end of the process frees the slots that it still holds
                self.store.database.close_for_good()
        self._notifier.close()
        self.mailboxes.close()

    def _leave(self) -> None:
        if not self.holdings.grants:
            may_hold = self.holdings.has_unfinished
            self.store.transact(lambda txn: self.membership.leave(txn, may_hold=may_hold))
            self.membership.retire()

    def is_of_another_process(self) -> bool:
        """Return whether a fork has copied this engine, which the child does not use."""
        return self._pid != os.getpid()

    def after_fork_in_child(self) -> None:
        """Close the copies of the parent's descriptors, and forget what the parent holds."""
        self.store.database.close_in_child()
        self.membership.close_in_child()
        self.holdings.forget_all()
        self._watch.forget()
        self._notifier.close()
        self.mailboxes.close_in_child()
