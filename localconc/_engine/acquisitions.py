"""Acquiring and releasing: what this process tries once in a store, without ever waiting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine import events
from localconc._engine.core.calls import CONCURRENCY, Request
from localconc._engine.core.clock import monotonic
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.core.records import Grant, LimitRef, Requester
from localconc._engine.queue import admission, deadlocks
from localconc._engine.queue.explain import Caller, Moment, Reason, explain
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.store.rows.statements import (
    ACQUIRE_FAST,
    ADMIT_FAST,
    ENQUEUE_FAST,
    HAS_QUEUE,
    RELEASE,
    RELEASE_FAST,
)
from localconc._engine.store.store import Transaction
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from sqlite3 import Connection

    from localconc._engine.core.clock import Clock, Mailbox
    from localconc._engine.core.records import LimitRow
    from localconc._engine.holdings import Handle, Holdings
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.store.store import Store

#: After this long a waiter is likely, and the fast release would fail.
MAX_FAST_RELEASE_SECONDS: Final = 0.0005

#: A grant that is picked up later than this may have been taken back: the process was stopped when it was granted.
#: It is less than `liveness.reaper.PICK_UP_SECONDS`, by more than the clocks of two processes differ.
MAX_PICK_UP_SECONDS: Final = 0.8

#: The ticket of a request that is not queued yet: after every other one.
MAX_TICKET: Final = 2**63 - 1


class Queued(NamedTuple):
    """A request that was queued.

    Attributes:
        ticket: its place in the order of arrival.
        secret: what a wakeup has to know to prove the grant; 0 if the store has to be looked at.
        requester: its owner and serial.
        refs: the limits that it was queued on.
        mailbox: where its wakeups come.
        is_simple: whether its row goes with the grant; else its process has to accept the outcome.
        enqueued_boot: when it was queued.
        due_at: when it can be admitted, if only time stands before it.
        retry_after: after how many seconds a retry is worth while.
    """

    ticket: int
    secret: int
    requester: Requester
    refs: tuple[LimitRef, ...]
    mailbox: Mailbox
    is_simple: bool
    enqueued_boot: float
    due_at: float | None
    retry_after: float


class WaitTerms(NamedTuple):
    """How a caller waits, if it has to.

    Attributes:
        mailbox: where its wakeups are to come.
        has_end: whether it waits with a time-out, or with retries.
        needs_estimate: whether it goes by `retry_after`, which the fast statements don't tell.
        stops: the threads and tasks of this process that hold something and can't go on while it waits.
    """

    mailbox: Mailbox
    has_end: bool
    needs_estimate: bool
    stops: tuple[int, ...]


class Deadlocked(NamedTuple):
    """A request that was not queued, since it would have waited for something that its own caller holds.

    Attributes:
        text: the circle, in words.
        owner_ids: the processes in it; if one of them is dead, there is no circle.
    """

    text: str
    owner_ids: tuple[int, ...]


class Refused(NamedTuple):
    """A request that was neither admitted nor queued."""

    reason: Reason
    limit_ids: list[int]


class Acquisitions:
    """What this process acquires in one store, and releases.

    A limit that is enforced and has no decay is served by the fast statements, as long as its definition stays the one
    that this process knows; everything else goes by the rules of `queue.admission`.

    Args:
        store: the store.
        membership: this process in it.
        holdings: what this process holds.
        clock: what time it is.
        wake: sends wakeups.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        holdings: Holdings,
        clock: Clock,
        wake: Callable[[list[tuple[str, tuple[int, int, float, float]]]], None],
    ) -> None:
        self._store = store
        self._membership = membership
        self._holdings = holdings
        self._clock = clock
        self._wake = wake
        self._fast_path_limits: dict[str, LimitRef] = {}
        self._crowded: set[str] = set()  # of those, the ones that somebody waited for recently

    def forget_definitions(self) -> None:
        """Look at limits anew before the fast statements are used on them."""
        self._fast_path_limits.clear()
        self._crowded.clear()

    # ---- acquiring -------------------------------------------------------------------------------------------

    def acquire_fast(self, request: Request, thread: str, context: int) -> Handle | None:
        """Acquire slots by one statement; return None if the general way is needed."""
        names = request.names
        ref = self._fast_path_limits.get(names[0])
        database = self._store.database
        if (
            ref is None
            or len(names) != 1
            or names[0] in self._crowded
            or (request.limit is not None and request.limit != ref.limit)
            or request.slot_decay_per_second
            or request.mode != CONCURRENCY
            or (monotonic() >= database.verify_after and not self._is_usable())
        ):
            return None
        wall, now, label = self._clock.wall(), self._clock.now(), request.label
        holdings = self._holdings
        handle = holdings.begin(thread, label, context)
        serial = handle.serial
        handle.limit_ids = (ref.limit_id,)
        handle.grant = grant = Grant((ref,), request.slots, wall, now, 0.0, thread, label, context)
        holdings.keep(serial, grant)
        acquired = 0
        try:
            acquired = database.execute_fast(
                ACQUIRE_FAST,
                (
                    ref.limit_id,
                    ref.revision,
                    ref.limit,
                    self._membership.owner_id,
                    serial,
                    request.slots,
                    wall,
                    now,
                    thread,
                    label or None,
                    context,
                ),
            )
        except (Busy, Damaged):
            pass
        except BaseException:
            holdings.undo(handle)
            raise
        if acquired != 1:
            holdings.forget(serial)
            return None
        if events.subscribers:
            events.publish(events.ACQUIRED, wall, grant.refs, grant.slots, self._membership.owner_id, serial)
        return handle

    def _is_usable(self) -> bool:
        try:
            return self._store.is_usable()
        except (Damaged, StoreError):
            return False  # the general way says what is wrong

    def try_acquire(
        self,
        request: Request,
        handle: Handle,
        terms: WaitTerms | None,
        *,
        is_retry: bool = False,
    ) -> Handle | Queued | Refused | Deadlocked:
        """Acquire the slots, or enqueue the request (if the caller waits), or count a refusal.

        Args:
            terms: how the caller waits; None if it tries once.
            is_retry: whether a refusal of this request was counted already.

        Raises:
            Busy: another process is writing; nothing was done.
            ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
        """
        handle.limit_ids = None
        ref = self._fast_path_limits.get(request.names[0])
        if (
            terms is not None
            and ref is not None
            and not terms.needs_estimate
            and (terms.has_end or not terms.stops)
            and len(request.names) == 1
            and request.mode == CONCURRENCY
            and request.slots <= max(ref.limit, 1)
            and (request.limit is None or (request.limit == ref.limit and not request.slot_decay_per_second))
        ):
            outcome = self._acquire_or_enqueue(request, handle, ref, terms)
            if outcome is not None:
                return outcome
        return self._try_by_rules(request, handle, terms, is_retry)

    def _acquire_or_enqueue(
        self, request: Request, handle: Handle, ref: LimitRef, terms: WaitTerms
    ) -> Handle | Queued | None:
        """Acquire or enqueue by the fast statements, in one transaction; return None if they don't apply any more."""
        what = (self._membership, self._clock, request, handle, ref, terms)
        outcome = self._store.database.transact("BEGIN IMMEDIATE", _enqueue_or_acquire, what)
        if outcome is None:
            self._fast_path_limits.pop(ref.name, None)
            return None
        if isinstance(outcome, Queued):
            handle.ticket = outcome.ticket  # first: once the limits are known, only this tells of a place in the queue
            handle.limit_ids = (ref.limit_id,)
            self._crowded.add(ref.name)
            return outcome
        handle.limit_ids = (ref.limit_id,)
        self._crowded.discard(ref.name)
        return self._holdings.hold(handle, outcome, request)

    def _try_by_rules(
        self, request: Request, handle: Handle, terms: WaitTerms | None, is_retry: bool
    ) -> Handle | Queued | Refused | Deadlocked:
        def work(txn: Transaction) -> tuple[Grant | Queued | Refused | Deadlocked, list[LimitRow]]:
            requester = Requester(self._membership.owner_id, handle.serial, handle.thread, handle.label, handle.context)
            rows = admission.resolve(txn, request, requester.owner_id)
            if any(row.decay > 0 and row.first_ticket is not None for row in rows):
                limit_ids = [row.id for row in rows]
                admission.admit_waiters(txn, limit_ids, has_new_first=False)  # those whose slots have drained
                rows = txn.ledger.limits_with_ids(limit_ids)
            hindered = admission.blocked(request.slots, rows, txn.now, None)
            if hindered is None:
                refs = admission.grant(txn, request, rows, requester)
                grant = Grant(refs, request.slots, txn.wall, txn.now, 0.0, handle.thread, handle.label, handle.context)
                return grant, rows
            if terms is None:
                return self._refuse(txn, request, requester, rows, is_retry), rows
            return self._enqueue(txn, request, requester, rows, terms, hindered.until), rows

        outcome, rows = self._store.transact(work)
        if len(rows) == 1 and rows[0].decay == 0 and request.mode == CONCURRENCY:
            self._fast_path_limits[rows[0].name] = LimitRef.of(rows[0])
        if isinstance(outcome, Queued):
            handle.ticket = outcome.ticket
            self._crowded.add(request.names[0])
        handle.limit_ids = () if isinstance(outcome, (Refused, Deadlocked)) else tuple(row.id for row in rows)
        return self._holdings.hold(handle, outcome, request) if isinstance(outcome, Grant) else outcome

    def _enqueue(
        self,
        txn: Transaction,
        request: Request,
        requester: Requester,
        rows: list[LimitRow],
        terms: WaitTerms,
        due_at: float | None,
    ) -> Queued | Deadlocked:
        ids = [row.id for row in rows]
        if terms.stops and not terms.has_end:
            deadlocked = _deadlock(txn, request, requester, ids, terms.stops, self._holdings.being_released())
            if deadlocked is not None:
                return deadlocked
        secret = int.from_bytes(os.urandom(7)) + 1
        is_simple = len(rows) == 1 and rows[0].decay == 0 and request.mode == CONCURRENCY
        retry_after = admission.deny(txn, request, rows, counts=not is_simple)  # else its trigger counts it
        ticket = txn.ledger.insert_waiter(
            requester,
            request,
            ids,
            terms.mailbox.address,
            secret,
            txn.wall,
            txn.now,
            is_simple=is_simple,
            has_end=terms.has_end,
            stops=",".join(map(str, terms.stops)),
        )
        refs = tuple(map(LimitRef.of, rows))
        return Queued(ticket, secret, requester, refs, terms.mailbox, is_simple, txn.now, due_at, retry_after)

    def _refuse(
        self, txn: Transaction, request: Request, requester: Requester, rows: list[LimitRow], is_retry: bool
    ) -> Refused:
        if not is_retry:
            admission.deny(txn, request, rows)
            for row in rows:
                txn.ledger.record_refusal(row.id, txn.wall)
        caller = Caller(requester.owner_id, requester.context)
        limit_ids = [row.id for row in rows]
        reason = explain(Moment(txn.ledger, txn.now, txn.wall), limit_ids, None, caller, request.slots)
        return Refused(reason, limit_ids)

    def accept_wakeup(
        self, request: Request, queued: Queued, handle: Handle, wakeup: tuple[int, int, float, float]
    ) -> Handle | None:
        """Accept a grant that a wakeup proves; return None if the store has to be looked at.

        A wakeup proves the grant by the secret of the waiter's row. It proves nothing once it is old: another process
        may have taken the slots back from a stopped one. The acknowledgement is written before the clock is read, so
        whoever takes slots back for being late sees it, or this process sees that it is late.
        """
        serial, secret, acquired_wall, acquired_boot = wakeup
        owner = self._membership.owner
        if secret != queued.secret or not secret or owner is None or not owner.acknowledge(serial):
            return None
        late = self._clock.now() - acquired_boot
        if not -MAX_PICK_UP_SECONDS < late < MAX_PICK_UP_SECONDS:
            return None
        if not queued.is_simple:
            self._store.delete_later(queued.ticket)
        grant = Grant(
            queued.refs,
            request.slots,
            acquired_wall,
            acquired_boot,
            max(0.0, acquired_boot - queued.enqueued_boot),
            handle.thread,
            handle.label,
            handle.context,
        )
        return self._holdings.hold(handle, grant, request)

    # ---- releasing -------------------------------------------------------------------------------------------

    def release_fast(self, handle: Handle) -> bool:
        """Release slots by one statement; return False if the general way is needed."""
        serial = handle.serial
        grant = self._holdings.grants.get(serial)
        if grant is None:
            return False
        now = self._clock.now()
        refs = grant.refs
        if (
            now > grant.acquired_boot + MAX_FAST_RELEASE_SECONDS
            or len(refs) != 1
            or refs[0].name not in self._fast_path_limits
            or refs[0].name in self._crowded
            or monotonic() >= self._store.database.verify_after
        ):
            return False
        try:
            released = self._store.database.execute_fast(
                RELEASE_FAST, (now, refs[0].limit_id, self._membership.owner_id, serial)
            )
        except (Busy, Damaged, StoreError):
            return False
        except BaseException:
            self._holdings.undo(handle)
            raise
        if released == 1:
            self._released(serial, grant, now)
        return released == 1

    def release(self, handle: Handle) -> bool:
        """Release an acquisition's slots, once, and admit the next waiters; return whether there was one.

        Raises:
            Busy: another process is writing; nothing was released.
        """
        grant = self._holdings.grants.get(handle.serial)
        if grant is None:
            return False  # the parent's, seen by a forked child; or released already
        if len(grant.refs) == 1 and grant.refs[0].name in self._fast_path_limits:
            what = (self._membership, self._clock, self._holdings.grants, handle.serial)
            released = self._store.database.transact("BEGIN IMMEDIATE", _release_and_admit, what)
            if released is not None:
                return self._follow_up(handle.serial, grant, *released)
        return self._release_by_rules(handle.serial)

    def _follow_up(
        self,
        serial: int,
        grant: Grant,
        now: float,
        woken: tuple[str, tuple[int, int, float, float]] | None,
        more: Transaction | None,
    ) -> bool:
        """Wake whoever was admitted by a release."""
        if woken is not None:
            self._wake([woken])
        elif more is None:
            self._crowded.discard(grant.refs[0].name)
        if more is not None:
            self._store.announce(more)
        self._released(serial, grant, now)
        return woken is not None or (more is not None and bool(more.admitted))

    def _release_by_rules(self, serial: int) -> bool:
        grants = self._holdings.grants

        def work(txn: Transaction) -> tuple[Grant, bool]:
            grant = grants[serial]  # not from before: the store may have been opened anew, under other numbers
            held = [ref.limit_id for ref in grant.refs if txn.release(ref.limit_id, self._membership.owner_id, serial)]
            admission.admit_waiters(txn, held)
            return grant, bool(held)

        (grant, was_held), txn = self._store.transact_with_effects(work)
        if was_held:
            self._released(serial, grant, txn.now)
        else:
            self._holdings.forget(serial)
        return bool(txn.admitted)

    def _released(self, serial: int, grant: Grant, now: float) -> None:
        self._holdings.forget(serial)
        if events.subscribers:
            released_wall = grant.acquired_wall + (now - grant.acquired_boot)  # as the history has it
            owner_id = self._membership.owner_id
            events.publish(events.RELEASED, released_wall, grant.refs, grant.slots, owner_id, serial)


# ---- the fast statements, each function inside one transaction -------------------------------------------------------


def _enqueue_or_acquire(
    connection: Connection, what: tuple[Membership, Clock, Request, Handle, LimitRef, WaitTerms]
) -> Grant | Queued | None:
    """Enqueue a simple request, or acquire its slots if there is room; return None if neither applies."""
    membership, clock, request, handle, ref, terms = what
    owner_id, serial, thread, context = membership.owner_id, handle.serial, handle.thread, handle.context
    wall, now, slots, limit_id = clock.wall(), clock.now(), request.slots, ref.limit_id
    secret = int.from_bytes(os.urandom(7)) + 1
    waiter = (owner_id, serial, slots, request.to_text(), thread, context, terms.has_end, terms.mailbox.address, secret)
    cursor = connection.execute(ENQUEUE_FAST, (*waiter, wall, now, limit_id, ref.revision, now, slots))
    if cursor.rowcount == 1:
        assert cursor.lastrowid is not None
        requester = Requester(owner_id, serial, thread, handle.label, context)
        return Queued(cursor.lastrowid, secret, requester, (ref,), terms.mailbox, True, now, None, 0.0)
    holder = (
        limit_id,
        ref.revision,
        ref.limit,
        owner_id,
        serial,
        slots,
        wall,
        now,
        thread,
        handle.label or None,
        context,
    )
    if connection.execute(ACQUIRE_FAST, holder).rowcount == 1:
        return Grant((ref,), slots, wall, now, 0.0, thread, handle.label, context)
    return None


def _release_and_admit(
    connection: Connection, what: tuple[Membership, Clock, dict[int, Grant], int]
) -> tuple[float, tuple[str, tuple[int, int, float, float]] | None, Transaction | None] | None:
    """Release the slots of one limit and admit the first waiter; return None if the rules are needed.

    Returns:
        When it was, whom to wake, and what the rules did beyond that.
    """
    membership, clock, grants, serial = what
    wall, now = clock.wall(), clock.now()
    limit_id = grants[serial].refs[0].limit_id  # not from before: the store may have been opened anew
    if connection.execute(RELEASE, (now, limit_id, membership.owner_id, serial)).rowcount != 1:
        return None
    row = connection.execute(ADMIT_FAST, (wall, now, limit_id, limit_id, now, limit_id)).fetchone()
    if row is None:
        woken, may_admit_more = None, connection.execute(HAS_QUEUE, (limit_id,)).fetchone() is not None
    else:
        room, slots, _, waiter_serial, address, secret, _ = row
        woken, may_admit_more = (address, (waiter_serial, secret, wall, now)), room > slots
    more = None
    if may_admit_more:
        more = Transaction(Ledger(connection), now, wall)
        admission.admit_waiters(more, [limit_id])
    return now, woken, more


def _deadlock(
    txn: Transaction,
    request: Request,
    requester: Requester,
    limit_ids: list[int],
    stops: tuple[int, ...],
    being_released: set[int],
) -> Deadlocked | None:
    """Return the circle that a request would close; None if it would not wait for its own caller."""
    contexts = tuple((requester.owner_id, context) for context in stops)
    who = f"this very thread or task ({requester.thread})"
    asked = deadlocks.Waiting(MAX_TICKET, contexts, request.slots, tuple(limit_ids), who, request.names)
    waiting, held, sizes = deadlocks.situation(
        txn.ledger, txn.now, [asked], {(requester.owner_id, serial) for serial in being_released}
    )
    stuck = deadlocks.find_stuck(waiting, held, sizes)
    if asked not in stuck:
        return None
    circle = deadlocks.circle_of(asked, stuck, held)
    owner_ids = {owner_id for each in stuck for owner_id, _ in each.contexts} - {requester.owner_id}
    return Deadlocked(deadlocks.described(circle, held), tuple(owner_ids))
