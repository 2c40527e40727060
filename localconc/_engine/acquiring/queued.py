"""Queued requests of this process: the state of one, its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.acquiring.terms import Deadlocked, Queued, Refused
from localconc._engine.acquiring.unadmitted import running_caller, would_deadlock
from localconc._engine.core.errors import shown
from localconc._engine.core.records import Grant, LimitRef, limits_text
from localconc._engine.queue import admission
from localconc._engine.queue.cleanup import cancel
from localconc._engine.queue.explain import MAX_NAMED_HOLDERS, HolderLists, LedgerAt, Reason, explain
from localconc._engine.queue.turns import Queues, blocked
from localconc._engine.store.rows import listings, owner_rows
from localconc._engine.store.rows.schema import GRANTED, PASSED_OVER, REFUSED, WAITING
from localconc.errors import ConcurrencySlotAcquisitionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.core.calls import Request
    from localconc._engine.core.clock import Clock
    from localconc._engine.core.records import LimitRow, Requester, WaiterRow
    from localconc._engine.holding.holdings import Handle, Holdings
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.store.rows.ledger import Ledger
    from localconc._engine.store.rows.listings import HolderEntry
    from localconc._engine.store.store import Store, Transaction


#: How many queues one poll for a whole process looks at; the next poll continues with the others.
MAX_QUEUES: Final = 256


class Heads(NamedTuple):
    """What the first waiters of some limits are.

    Attributes:
        overdue: the limits whose first waiter could be admitted already, but its process does not act.
        own: the limits whose first waiter is of this process.
        depend_on_time: whether a limit of a first waiter decays or is paused, so that it becomes due without a commit.
    """

    overdue: list[int]
    own: list[int]
    depend_on_time: bool


class WaiterStatus(NamedTuple):
    """The state of a queued request.

    Attributes:
        is_waiting: whether it is still in the queue; if not, its process has to accept the outcome.
        limit_ids: the limits that it is queued on now; they change when an operator deletes, creates or renames one.
        due_at: when it can be admitted, if it only waits for a moment.
        overdue: limits whose first waiter could be admitted already, but its process does not act.
        may_be_stopped: whether holders were admitted from the queue: one may be stopped, and not have picked that up.
        owners_ahead: how many processes are ahead of it, up to a bound.
        depends_on_time: whether all this can change without a commit.
    """

    is_waiting: bool
    limit_ids: list[int]
    due_at: float | None
    overdue: list[int]
    may_be_stopped: bool
    owners_ahead: int
    depends_on_time: bool


_ANSWERED: Final = WaiterStatus(False, [], None, [], False, 0, False)


class QueuedRequests:
    """Operations on queued requests, each of which is tried once."""

    def __init__(self, store: Store, membership: Membership, holdings: Holdings, clock: Clock) -> None:
        self._store = store
        self._membership = membership
        self._holdings = holdings
        self._clock = clock
        self._last_queue = 0
        self._holder_lists = HolderLists()

    # ---- its state -------------------------------------------------------------------------------------------

    def owners_in_front(self, queued: Queued) -> int:
        """Return how many processes are ahead of a request, up to a bound; 0 if that does not tell that they act.

        It does not if the request has left the queue, or if a process may be stopped with what it was granted.
        """

        def look(ledger: Ledger) -> int:
            waiter = _waiting(ledger, queued)
            if waiter is None:
                return 0
            limit_ids = waiter.queued_on
            ahead = owner_rows.count_ahead(ledger.connection, limit_ids, queued.ticket)
            return 0 if listings.has_queued_holders(ledger.connection, limit_ids) else ahead

        return self._store.read(look)

    def check(self, queued: Queued) -> WaiterStatus:
        """Return the state of a queued request, from one read transaction."""

        def look(ledger: Ledger) -> WaiterStatus:
            waiter = _waiting(ledger, queued)
            if waiter is None:
                return _ANSWERED
            now, limit_ids = self._clock.now(), waiter.queued_on
            rows = ledger.limits_with_ids(limit_ids)
            block = blocked(waiter.slots, rows, now, queued.ticket)
            due_at = now if block is None else block.until
            heads = self._heads(ledger, limit_ids, rows)
            ahead = owner_rows.count_ahead(ledger.connection, limit_ids, queued.ticket)
            overdue = heads.overdue if due_at is None else []
            may_be_stopped = listings.has_queued_holders(ledger.connection, limit_ids)
            return WaiterStatus(True, limit_ids, due_at, overdue, may_be_stopped, ahead, heads.depend_on_time)

        return self._store.read(look)

    def explain(self, queued: Queued, slots: int) -> Reason:
        """Return what a queued request waits for, with all holders."""
        limit_ids, caller = [ref.limit_id for ref in queued.refs], running_caller(queued.requester)

        def look(ledger: Ledger) -> Reason:
            at = LedgerAt(ledger, self._clock.now(), self._clock.wall())
            return explain(at, limit_ids, queued.ticket, caller, slots, self._holder_lists)

        return self._store.read(look)

    def with_all_holders(self, refused: Refused) -> Reason:
        """Return the reason of a refusal with all holders of its limits; a transaction has only read the first few."""
        if len(refused.reason.entries) <= MAX_NAMED_HOLDERS:
            return refused.reason

        def look(ledger: Ledger) -> Reason:
            entries: tuple[HolderEntry, ...] = ()
            for row in ledger.limits_with_ids(refused.limit_ids):
                shares = listings.shares(ledger.connection, row.id)
                entries += self._holder_lists.read(ledger.connection, row, shares)
            return refused.reason._replace(entries=entries)

        return self._store.read(look)

    def addresses(self) -> set[str]:
        """Return the mailboxes of all requests of this process that are in the queue."""
        owner_id = self._membership.owner_id
        return self._store.read(lambda ledger: listings.waiting_addresses(ledger.connection, owner_id))

    def queues(self) -> tuple[list[int], bool]:
        """Return limits that this process waits for, and whether that are all; if they are many, others each time."""
        owner_id = self._membership.owner_id
        limit_ids = sorted(self._store.read(lambda ledger: listings.queues_of(ledger.connection, owner_id)))
        left = [limit_id for limit_id in limit_ids if limit_id > self._last_queue]
        queues = (left or limit_ids)[:MAX_QUEUES]
        self._last_queue = queues[-1] if len(queues) < len(limit_ids) else 0
        return queues, len(queues) == len(limit_ids)

    def owners_ahead(self, limit_ids: Iterable[int]) -> int:
        """Return how many processes are ahead of the nearest request of this one on any of these limits."""
        ids, own = list(limit_ids), self._membership.owner_id

        def look(ledger: Ledger) -> int:
            tickets = [(each, listings.first_ticket_of(ledger.connection, each, own)) for each in ids]
            found = [
                owner_rows.ahead(ledger.connection, each, ticket) for each, ticket in tickets if ticket is not None
            ]
            return min(map(len, found), default=0)

        return self._store.read(look)

    def heads(self, limit_ids: Iterable[int]) -> Heads:
        """Look at the first waiters of limits."""
        ids = list(limit_ids)
        return self._store.read(lambda ledger: self._heads(ledger, ids))

    def _heads(self, ledger: Ledger, limit_ids: list[int], rows: Iterable[LimitRow] = ()) -> Heads:
        queues, own = Queues(ledger, self._clock.now(), rows), self._membership.owner_id
        firsts = {limit_id: first for limit_id in limit_ids if (first := queues.first(limit_id)) is not None}
        distinct = {first.waiter.ticket: first for first in firsts.values()}.values()
        return Heads(
            [limit_id for limit_id, first in firsts.items() if first.block is None],
            [limit_id for limit_id, first in firsts.items() if first.waiter.owner_id == own],
            any(row.decay > 0 or row.paused_until is not None for first in distinct for row in first.rows),
        )

    def admit_overdue(self, limit_ids: Iterable[int]) -> float | None:
        """Admit waiters whose processes should have acted; return when the next one can be, or None if none was."""
        ids = list(limit_ids)

        def work(txn: Transaction) -> float | None:
            admission.admit_waiters(txn, ids)
            return admission.next_due(txn, ids) if txn.admitted else None

        return self._store.transact(work)

    # ---- its outcome -----------------------------------------------------------------------------------------

    def accept(self, request: Request, queued: Queued, handle: Handle) -> Handle | Queued | Deadlocked:
        """Accept the outcome of a request that is no longer in the queue, by what the store says.

        Returns:
            The handle, if it was granted. If it was passed over while it was stopped: the request in the queue again,
            or a circle that it would close now; then nothing was changed.

        Raises:
            ConcurrencySlotAcquisitionError: the request was refused meanwhile.
            StoreError: the store does not know it.
        """
        owner = self._membership.owner
        if owner is not None:
            owner.acknowledge(handle.serial)  # before the transaction, so that no process takes back what that finds
        handle.limit_ids = None  # it may have slots of other limits than before, after a change of definitions

        def work(txn: Transaction) -> Grant | Queued | Deadlocked | str | None:
            waiter = txn.ledger.waiter(queued.ticket)
            if waiter is not None and waiter.requester[:2] != queued.requester[:2]:
                waiter = None
            if waiter is None:
                return self._granted_by_rows(txn, queued, request)
            if waiter.state == REFUSED:
                txn.ledger.delete_waiter(waiter.ticket)
                return waiter.answer or "refused"
            if waiter.state == GRANTED:
                txn.ledger.delete_waiter(waiter.ticket)
                if len(waiter.queued_on) < len(request.names):  # the process that changed the limits did not tell
                    admission.warn_of_missing(txn, request, waiter.owner_id)
                return self._granted_by_outcome(txn, waiter)
            if waiter.state == PASSED_OVER:
                handle.ticket = None  # it may get another one
                return self._rejoin(txn, request, queued, waiter)
            return queued

        def note(outcome: Grant | Queued | Deadlocked | str | None) -> None:
            if isinstance(outcome, Grant):
                self._holdings.hold(handle, outcome, request)
            elif isinstance(outcome, Queued):
                handle.ticket = outcome.ticket

        outcome = self._store.transact(work, note)
        if isinstance(outcome, Grant):
            return self._holdings.publish_acquired(handle)
        if isinstance(outcome, str):
            raise ConcurrencySlotAcquisitionError(outcome)
        if outcome is None:
            raise StoreError(
                f"A waiting request vanished from the database {shown(self._store.database.path)}: was it "
                "deleted or replaced while it was in use? Call again."
            )
        return outcome

    def _granted_by_rows(self, txn: Transaction, queued: Queued, request: Request) -> Grant | None:
        """Return the grant of a simple request, whose row the grant has deleted; None if there is no grant."""
        owner_id, serial = queued.requester[:2]
        connection = txn.ledger.connection
        found = listings.queued_holders(connection, owner_id, serial, [ref.limit_id for ref in queued.refs])
        if found and found[0].ticket == queued.ticket:
            acquired_wall, acquired_boot = found[0].acquired_wall, found[0].acquired_boot
            waited_seconds = found[0].waited_seconds
        elif owner_id == self._membership.owner_id and listings.has_held(connection, owner_id, serial):
            # An operator has discarded the holders, or deleted the limit. The grant counts; its release does nothing.
            acquired_wall, acquired_boot = txn.wall, txn.now
            waited_seconds = max(0.0, txn.now - queued.enqueued_boot)
        else:
            return None
        return _grant(queued.requester, queued.refs, request.slots, acquired_wall, acquired_boot, waited_seconds)

    def _granted_by_outcome(self, txn: Transaction, waiter: WaiterRow) -> Grant:
        assert waiter.granted_wall is not None
        assert waiter.granted_boot is not None
        refs = tuple(map(LimitRef.of, txn.ledger.limits_with_ids(waiter.queued_on)))
        waited_seconds = max(0.0, waiter.granted_boot - waiter.enqueued_boot)
        return _grant(waiter.requester, refs, waiter.slots, waiter.granted_wall, waiter.granted_boot, waited_seconds)

    def _rejoin(
        self, txn: Transaction, request: Request, queued: Queued, waiter: WaiterRow
    ) -> Queued | Grant | Deadlocked:
        """Queue a request that was passed over at its old place, and admit it if there is room.

        If that would close a circle of others, it joins the end of the queue: it would wait for those who wait for it.
        """
        rows = admission.resolve(txn, request, waiter.owner_id)
        if not rows:  # none of its limits is enforced any more
            txn.ledger.delete_waiter(waiter.ticket)
            return self._granted_by_outcome(
                txn, waiter._replace(limit_ids="[]", granted_wall=txn.wall, granted_boot=txn.now)
            )
        terms, limit_ids = queued.terms, [row.id for row in rows]
        ticket, asked = waiter.ticket, (txn, request, waiter.requester, limit_ids, terms.stops)
        deadlocked = None if terms.has_end else would_deadlock(*asked, ticket)
        if deadlocked is not None and terms.stops:  # others have closed a circle while it had no place
            return deadlocked
        is_in_the_way = deadlocked is not None and would_deadlock(*asked) is None
        txn.ledger.delete_waiter(ticket)
        ticket = txn.ledger.insert_waiter(
            waiter._replace(  # the slots, too: some may have drained from the grant that was taken back
                ticket=0 if is_in_the_way else ticket,
                state=WAITING,
                slots=request.slots,
                limit_ids=limits_text(limit_ids),
                request=request.to_text(),
                address=terms.mailbox.address,
                has_end=int(terms.has_end),
                stops=",".join(map(str, terms.stops)),
            )
        )
        admission.admit_waiters(txn, limit_ids)
        now_is = txn.ledger.waiter(ticket)
        if now_is is not None and now_is.state == GRANTED:
            txn.ledger.delete_waiter(ticket)
            return self._granted_by_outcome(txn, now_is)
        owner = self._membership.owner
        if owner is not None:
            owner.retract(queued.requester.serial)  # so that it can be passed over again
        return queued._replace(ticket=ticket, secret=0, is_simple=False, refs=tuple(map(LimitRef.of, rows)))

    # ---- giving up -------------------------------------------------------------------------------------------

    def deny(self, request: Request, queued: Queued) -> float:
        """Count one more refused attempt of a queued request; return after how many seconds to retry."""

        def work(txn: Transaction) -> float:
            return admission.deny(txn, request, txn.ledger.limits_with_ids(ref.limit_id for ref in queued.refs))

        return self._store.transact(work)

    def give_up(self, queued: Queued) -> None:
        """Leave the queue, because the request is refused."""

        def work(txn: Transaction) -> None:
            for row in txn.ledger.limits_with_ids(ref.limit_id for ref in queued.refs):
                txn.ledger.record_refusal(row.id, txn.wall)
            cancel(txn, queued.ticket, *queued.requester[:2])

        self._store.transact(work)


def _waiting(ledger: Ledger, queued: Queued) -> WaiterRow | None:
    """Return the row of a request; None if it does not wait any more."""
    waiter = ledger.waiter(queued.ticket)
    is_it = waiter is not None and waiter[1:4] == (*queued.requester[:2], WAITING)
    return waiter if is_it else None


def _grant(
    requester: Requester, refs: tuple[LimitRef, ...], slots: int, wall: float, boot: float, waited_seconds: float
) -> Grant:
    return Grant(refs, slots, wall, boot, waited_seconds, requester.thread, requester.label, requester.context)
