"""Acting for processes that can't act: releasing what dead ones held, passing over stopped ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from localconc._engine.liveness import owner as owners
from localconc._engine.liveness.processes import is_own_table, is_stopped
from localconc._engine.queue import cleanup
from localconc._engine.store.rows import listings, owner_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from localconc._engine.core.clock import Clock
    from localconc._engine.core.records import OwnerRow
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.liveness.watch import Watch
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.store import Store, Transaction

#: How many owners a new process looks at, to clean up after dead ones.
MAX_SWEPT_OWNERS: Final = 64

#: If more processes than this are in the store, a waiter watches only those in front of it.
MAX_WATCHED_AT_ONCE: Final = 400

#: A stopped process has this long to pick up what it was granted; then the next waiter gets it.
PICK_UP_SECONDS: Final = 1.0


class Reaper:
    """Notices deaths among the owners of one store, and cleans up after them."""

    def __init__(self, directory: Path, clock: Clock, store: Store, membership: Membership, watch: Watch) -> None:
        self._directory = directory
        self._clock = clock
        self._store = store
        self._membership = membership
        self._watch = watch
        self._newest_watched = 0  # the watch has the processes of the store up to this one

    # ---- the watch -------------------------------------------------------------------------------------------

    @property
    def descriptor(self) -> int | None:
        """A descriptor that becomes readable when a watched process dies; None if there is no watch."""
        return self._watch.descriptor

    @property
    def recheck_at(self) -> float | None:
        """When to look again at suspects that still seemed to live; None if there are none."""
        return self._watch.recheck_at

    @property
    def is_complete(self) -> bool:
        """Whether every death that concerns a waiter makes the descriptor readable."""
        return self._watch.is_complete

    def has_news(self) -> bool:
        """Return whether a watched process may have died."""
        with self._store.database.lock:
            return self._watch.has_news()

    def watch_in_front(self, limit_ids: Iterable[int], ticket: int | None) -> None:
        """Watch the processes that hold slots of these limits, or are queued on them ahead of a ticket.

        Unless there are too many, this watches every process of the store, so that the next waiter only has to look up
        the processes that have joined since.
        """
        newest = self._newest_watched
        rows = self._store.read(lambda ledger: owner_rows.after(ledger.connection, newest, MAX_WATCHED_AT_ONCE))
        if len(rows) < MAX_WATCHED_AT_ONCE:
            self._newest_watched = max([newest, *(row.id for row in rows)])
        else:
            rows = self._in_front(limit_ids, ticket)
        if rows:
            own = self._membership.owner_id
            with self._store.database.lock:
                self._watch.add(row for row in rows if row.id != own and not self._watch.is_watching(row.id))
        if self.has_news():
            self.reap_suspects()  # one may have died before it was watched

    def are_on(self, limit_ids: Collection[int], pids: Collection[int]) -> bool:
        """Return whether one of some watched processes holds slots of these limits, or is queued on them."""
        with self._store.database.lock:
            owner_ids = [row.id for row in self._watch.rows if row.pid in pids]

        def look(ledger: Ledger) -> bool:
            return any(owner_rows.is_on(ledger.connection, each, limit_ids) for each in owner_ids)

        return bool(owner_ids) and self._store.read(look)

    def reap_suspects(self) -> None:
        """Look at the watched processes that seem to have died, and release what the dead ones held."""
        with self._store.database.lock:
            suspects = [(row, self._watch.was_told_of(row.id)) for row in self._watch.take_suspects()]
        ids = [suspect.id for suspect, _ in suspects]
        found = self._store.read(lambda ledger: owner_rows.with_ids(ledger.connection, ids)) if ids else []
        rows = {row.id: row for row in found}
        for suspect, was_seen in suspects:
            row = rows.get(suspect.id)
            if row is None:  # it has left, or another process has reaped it
                with self._store.database.lock:
                    self._watch.remove(suspect)
            elif not self._reap_if_dead(row, was_seen=was_seen) and row != suspect:
                with self._store.database.lock:  # its row now describes the command that it started
                    self._watch.remove(suspect)
                    self._watch.add([row])

    def reap_in_front(self, limit_ids: Iterable[int], ticket: int | None, seen: Collection[int] = ()) -> bool:
        """Reap dead processes in front of a request; return whether there were any, or another process reaped one.

        Args:
            seen: the processes that were in front when the request was refused.
        """
        rows = self._in_front(limit_ids, ticket)
        has_gone = not {row.id for row in rows}.issuperset(set(seen) - {self._membership.owner_id})
        return self._reap_dead(rows) or has_gone

    def reap_served_first(self, limit_ids: Iterable[int], ticket: int | None, count: int) -> None:
        """Reap dead processes among the first few in front; if one was dead, look at all others in front, too."""
        ids, own = list(limit_ids), self._membership.owner_id
        rows = self._store.read(lambda ledger: owner_rows.served_first(ledger.connection, ids, count, own))
        if self._reap_dead(rows):
            self.reap_in_front(ids, ticket)

    def reap_owners(self, owner_ids: Iterable[int]) -> bool:
        """Reap the dead ones of some processes; return whether one was dead, or has left the store."""
        ids = set(owner_ids)
        rows = self._store.read(lambda ledger: owner_rows.with_ids(ledger.connection, ids))
        return self._reap_dead(rows) or len(rows) < len(ids)

    def reap_all(self) -> None:
        """Reap every dead process of the store."""
        self._reap_dead(self._store.read(lambda ledger: owner_rows.read_all(ledger.connection)))

    def sweep(self) -> None:
        """Reap dead processes among a few, others each time, so that a process starts quickly."""
        owner = self._membership.owner
        seed = 0 if owner is None else int(owner.key[:8], 16)
        self._reap_dead(self._store.read(lambda ledger: owner_rows.to_sweep(ledger.connection, MAX_SWEPT_OWNERS, seed)))

    def _in_front(self, limit_ids: Iterable[int], ticket: int | None) -> list[OwnerRow]:
        own = self._membership.owner_id
        ids = list(limit_ids)
        return self._store.read(lambda ledger: owner_rows.in_front(ledger.connection, ids, ticket, own))

    def _reap_dead(self, rows: Iterable[OwnerRow]) -> bool:
        """Reap the dead ones of these processes; return whether there were any."""
        others = [row for row in rows if row.id != self._membership.owner_id]
        dead = [self._reap_if_dead(row, was_seen=False) for row in others]
        return any(dead)

    def _reap_if_dead(self, row: OwnerRow, *, was_seen: bool) -> bool:
        if owners.is_alive(self._directory, row):
            return False
        self.reap(row, was_seen=was_seen)
        return True

    def reap(self, row: OwnerRow, *, was_seen: bool = False) -> None:
        """Release everything that a dead process held or waited for."""

        def work(txn: Transaction) -> bool:
            if owner_rows.with_id(txn.ledger.connection, row.id) not in (row, None):
                return False  # meanwhile, the command that it started has taken its place
            cleanup.reap(txn, row, was_seen=was_seen)
            return True

        if self._store.transact(work):
            owners.remove_file(self._directory, row)
            with self._store.database.lock:
                self._watch.remove(row)

    def forget(self) -> None:
        """End the watch, because in another store the same numbers are other processes."""
        with self._store.database.lock:
            self._watch.forget()
            self._newest_watched = 0

    # ---- stopped processes -----------------------------------------------------------------------------------

    def pass_over_stopped(self, limit_ids: Iterable[int]) -> bool:
        """Take back slots that stopped processes have not picked up; return whether there were any."""
        ids = list(limit_ids)
        before = self._clock.now() - PICK_UP_SECONDS

        def look(ledger: Ledger) -> list[tuple[int, int]]:
            found = [listings.queued_holders_before(ledger.connection, limit_id, before) for limit_id in ids]
            return list(dict.fromkeys(each for rows in found for each in rows))

        serials: dict[int, list[int]] = {}
        for owner_id, serial in self._store.read(look):
            serials.setdefault(owner_id, []).append(serial)
        rows = self._store.read(lambda ledger: owner_rows.with_ids(ledger.connection, serials)) if serials else []
        passed_over = False
        for row in filter(self._is_stopped, rows):
            for serial in serials[row.id]:
                if self._has_not_picked_up(row, serial):
                    passed_over = self._pass_over(row, serial) or passed_over
        return passed_over

    def next_pass_over(self, limit_ids: Iterable[int]) -> float | None:
        """Return when the next stopped process is late to pick up its slots; None if no process is."""
        ids = list(limit_ids)
        since = self._clock.now() - PICK_UP_SECONDS

        def look(ledger: Ledger) -> list[tuple[float, OwnerRow | None]]:
            found = [listings.queued_holders_after(ledger.connection, limit_id, since) for limit_id in ids]
            return [
                (granted_boot, owner_rows.with_id(ledger.connection, owner_id))
                for rows in found
                for owner_id, granted_boot in rows
            ]

        moments = [granted_boot for granted_boot, row in self._store.read(look) if self._is_stopped(row)]
        return min(moments) + PICK_UP_SECONDS if moments else None

    def _has_not_picked_up(self, row: OwnerRow, serial: int) -> bool:
        """Return whether a process is stopped and has not acknowledged a grant.

        This reads the acknowledgement last. A process that runs in between either acknowledges before this reads, or
        finds that the grant is old, and looks at the store before its body runs.
        """
        return self._is_stopped(row) and not owners.acknowledged(self._directory, row.key, serial)

    def _is_stopped(self, row: OwnerRow | None) -> bool:
        """Return whether another process is known to be stopped."""
        if row is None or row.id == self._membership.owner_id or not is_own_table(row.pid_namespace):
            return False
        return bool(is_stopped(row.pid))

    def _pass_over(self, row: OwnerRow, serial: int) -> bool:
        def work(txn: Transaction) -> bool:
            limit_ids = [limit_id for limit_id, held in txn.ledger.held_by(row.id) if held == serial]
            if not limit_ids or not self._has_not_picked_up(row, serial):
                return False
            return cleanup.pass_over(
                txn,
                row,
                serial,
                limit_ids,
                lambda owner_id: self._is_stopped(owner_rows.with_id(txn.ledger.connection, owner_id)),
            )

        return self._store.transact(work)
