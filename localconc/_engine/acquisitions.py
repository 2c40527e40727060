"""Acquiring and releasing: what this process tries once in a store, without ever waiting."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine import events
from localconc._engine.core.calls import CONCURRENCY, Request
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.core.records import Grant, LimitRef, Requester
from localconc._engine.finalizers import Finalizers
from localconc._engine.queue import admission, cleanup
from localconc._engine.queue.explain import Caller, Reason, explain
from localconc._engine.releases import BackgroundReleases
from localconc._engine.store.ledger import ACQUIRE_FAST, ENQUEUE_FAST, RELEASE_FAST
from localconc.errors import ConcurrencySlotAcquisitionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.clock import Clock, Mailbox
    from localconc._engine.core.records import LimitRow
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.store.store import Store, Transaction

#: After this long a waiter is likely, and the fast release would fail.
MAX_FAST_RELEASE_SECONDS: Final = 0.0005

#: A grant that is picked up later than this may have been taken back: the process was stopped when it was granted.
#: It is less than `liveness.reaper.PICK_UP_SECONDS`, by more than two processes' clocks differ.
MAX_PICK_UP_SECONDS: Final = 0.8


class Handle:
    """One acquisition of this process, from before the store is asked until its slots are released.

    If it is collected before, the slots are released in the background, however far the acquisition got.
    """

    __slots__ = ("__weakref__", "context", "grant", "label", "limit_ids", "serial", "thread", "ticket")

    def __init__(self, serial: int, thread: str, label: str, context: int) -> None:
        self.serial = serial
        self.thread = thread
        self.label = label
        self.context = context
        self.grant: Grant | None = None
        self.limit_ids: tuple[int, ...] | None = None  # None while nobody can tell of which limits it has slots
        self.ticket: int | None = None


class Queued(NamedTuple):
    """A request that was queued.

    `due_at` tells when it can be admitted if only time stands before it; `retry_after` when a retry is worth while.
    """

    ticket: int
    secret: int
    requester: Requester
    refs: tuple[LimitRef, ...]
    address: str
    is_reachable: bool
    is_simple: bool
    waiting_since: float
    due_at: float | None
    retry_after: float


class Refused(NamedTuple):
    """A request that was neither admitted nor queued."""

    reason: Reason
    limit_ids: list[int]


class Acquisitions:
    """What this process acquires in one store, holds, and releases.

    Args:
        store: the store.
        membership: this process in it.
        clock: what time it is.

    Attributes:
        grants: what this process holds, by serial.
    """

    def __init__(self, store: Store, membership: Membership, clock: Clock) -> None:
        self._store = store
        self._membership = membership
        self._clock = clock
        self._serials = itertools.count(1)
        self.grants: dict[int, Grant] = {}
        self._finalizers = Finalizers(self._release_lost)
        self._lost: set[int] = set()  # handles that were collected, and are released in the background
        self._fast_path_limits: dict[str, LimitRef] = {}  # enforced, without decay, as far as this process knows
        self._crowded: set[str] = set()  # of those, the ones that somebody waited for recently
        self._accepted: set[int] = set()  # tickets of waiters whose rows have served
        self._background = BackgroundReleases(self._undo)

    # ---- acquiring -------------------------------------------------------------------------------------------

    def begin(self, thread: str, label: str, context: int) -> Handle:
        """Begin an acquisition. The finalizer comes before the first statement, so an interrupt between them is undone."""
        serial = next(self._serials)
        handle = Handle(serial, thread, label, context)
        self._finalizers.attach(serial, handle)
        return handle

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
            or (time.monotonic() >= database.verify_after and not self._is_usable())
        ):
            return None
        wall, now, label = self._clock.wall(), self._clock.now(), request.label
        handle = self.begin(thread, label, context)
        serial = handle.serial
        handle.limit_ids = (ref.limit_id,)
        handle.grant = grant = Grant((ref,), request.slots, wall, now, 0.0, thread, label, context)
        self.grants[serial] = grant
        owner_id, acquired = self._membership.owner_id, 0
        try:
            acquired = database.execute_fast(
                ACQUIRE_FAST,
                (
                    ref.limit_id,
                    ref.revision,
                    ref.limit,
                    owner_id,
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
            self.undo(handle)
            raise
        if acquired != 1:
            self._forget(serial)
            return None
        if events.subscribers:
            events.publish(events.ACQUIRED, wall, grant.refs, grant.slots, owner_id, serial)
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
        mailbox: Callable[[], Mailbox] | None,
        *,
        is_retry: bool = False,
        needs_estimate: bool = False,
    ) -> Handle | Queued | Refused:
        """Acquire the slots, or enqueue the request (if there is a mailbox for wakeups), or count a refusal.

        Args:
            is_retry: whether a refusal of this request was counted already.
            needs_estimate: whether the caller goes by `retry_after`, which the fast statements don't tell.

        Raises:
            Busy: another process is writing; nothing was done.
            ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
        """
        handle.limit_ids = None
        ref = self._fast_path_limits.get(request.names[0]) if len(request.names) == 1 else None
        if mailbox is None or needs_estimate or ref is None:
            return self._try_by_rules(request, handle, mailbox, is_retry)
        if request.mode != CONCURRENCY or request.slots > max(ref.limit, 1):
            return self._try_by_rules(request, handle, mailbox, is_retry)
        if request.limit is not None and (request.limit != ref.limit or request.slot_decay_per_second):
            return self._try_by_rules(request, handle, mailbox, is_retry)
        outcome = self._acquire_or_enqueue(request, handle, ref, mailbox())
        return self._try_by_rules(request, handle, mailbox, is_retry) if outcome is None else outcome

    def _acquire_or_enqueue(
        self, request: Request, handle: Handle, ref: LimitRef, mailbox: Mailbox
    ) -> Handle | Queued | None:
        """Acquire or enqueue by the fast statements, in one transaction; return None if the rules are needed."""
        secret = int.from_bytes(os.urandom(7)) + 1
        slots, limit_id, thread, context = request.slots, ref.limit_id, handle.thread, handle.context
        text, label = request.to_text(), handle.label or None

        def work(txn: Transaction) -> Grant | Queued | None:
            owner_id, wall, now = self._membership.owner_id, txn.wall, txn.now
            execute = txn.ledger.connection.execute
            holder = (limit_id, ref.revision, ref.limit, owner_id, handle.serial, slots, wall, now, thread, label, context)
            if execute(ACQUIRE_FAST, holder).rowcount == 1:
                return Grant((ref,), slots, wall, now, 0.0, thread, handle.label, context)
            waiter = (owner_id, handle.serial, slots, text, thread, context, mailbox.address, secret, wall, now)
            cursor = execute(ENQUEUE_FAST, (*waiter, limit_id, ref.revision, now))
            if cursor.rowcount != 1:
                return None
            requester = Requester(owner_id, handle.serial, thread, handle.label, context)
            assert cursor.lastrowid is not None
            return Queued(
                cursor.lastrowid, secret, requester, (ref,), mailbox.address, mailbox.is_reachable, True, now, None, 0.0
            )

        outcome = self._store.transact(work)
        if outcome is None:
            self._fast_path_limits.pop(ref.name, None)
            return None
        if isinstance(outcome, Queued):
            handle.ticket = outcome.ticket
            handle.limit_ids = (limit_id,)  # from here on, an interrupted call can be undone by these two
            self._crowded.add(ref.name)
            return outcome
        handle.limit_ids = (limit_id,)
        self._crowded.discard(ref.name)
        return self.hold(handle, outcome, request)

    def _try_by_rules(
        self, request: Request, handle: Handle, mailbox: Callable[[], Mailbox] | None, is_retry: bool
    ) -> Handle | Queued | Refused:
        def work(txn: Transaction) -> tuple[Grant | Queued | Refused, list[LimitRow]]:
            requester = self._requester(handle)
            rows = admission.resolve(txn, request, requester.owner_id)
            if any(row.decay > 0 and row.first_ticket is not None for row in rows):
                limit_ids = [row.id for row in rows]
                admission.admit_waiters(txn, limit_ids, has_new_first=False)  # those whose slots have drained
                rows = txn.ledger.limits_with_ids(limit_ids)
            hindered = admission.blocked(request.slots, rows, txn.now, None)
            if hindered is not None:
                if mailbox is None:
                    return self._refuse(txn, request, requester, rows, is_retry), rows
                return self._enqueue(txn, request, requester, rows, mailbox(), hindered.until), rows
            refs = admission.grant(txn, request, rows, requester)
            return Grant(refs, request.slots, txn.wall, txn.now, 0.0, handle.thread, handle.label, handle.context), rows

        outcome, rows = self._store.transact(work)
        if len(rows) == 1 and rows[0].decay == 0 and request.mode == CONCURRENCY:
            self._fast_path_limits[rows[0].name] = LimitRef.of(rows[0])
        if isinstance(outcome, Queued):
            handle.ticket = outcome.ticket
            self._crowded.add(request.names[0])
        handle.limit_ids = () if isinstance(outcome, Refused) else tuple(row.id for row in rows)
        return self.hold(handle, outcome, request) if isinstance(outcome, Grant) else outcome

    def _enqueue(
        self,
        txn: Transaction,
        request: Request,
        requester: Requester,
        rows: list[LimitRow],
        mailbox: Mailbox,
        due_at: float | None,
    ) -> Queued:
        secret = int.from_bytes(os.urandom(7)) + 1
        is_simple = len(rows) == 1 and rows[0].decay == 0 and request.mode == CONCURRENCY
        retry_after = admission.deny(txn, request, rows, counts=not is_simple)  # else its trigger counts it
        ids = [row.id for row in rows]
        ticket = txn.ledger.insert_waiter(
            requester, request, ids, mailbox.address, secret, txn.wall, txn.now, is_simple=is_simple
        )
        refs = tuple(map(LimitRef.of, rows))
        return Queued(
            ticket,
            secret,
            requester,
            refs,
            mailbox.address,
            mailbox.is_reachable,
            is_simple,
            txn.now,
            due_at,
            retry_after,
        )

    def _refuse(
        self, txn: Transaction, request: Request, requester: Requester, rows: list[LimitRow], is_retry: bool
    ) -> Refused:
        if not is_retry:
            admission.deny(txn, request, rows)
            for row in rows:
                txn.ledger.record_refusal(row.id, txn.wall)
        caller = Caller(requester.owner_id, requester.context)
        return Refused(explain(txn, rows, None, caller, request.slots), [row.id for row in rows])

    def _requester(self, handle: Handle) -> Requester:
        return Requester(self._membership.owner_id, handle.serial, handle.thread, handle.label, handle.context)

    def hold(self, handle: Handle, grant: Grant, request: Request) -> Handle:
        """Note a grant; what nobody will release (of rate_limit, or of no limit) needs no finalizer any more."""
        handle.grant = grant
        if grant.refs and request.mode == CONCURRENCY:
            self.grants[handle.serial] = grant
        else:
            self._forget(handle.serial)
        if events.subscribers:
            owner_id = self._membership.owner_id
            events.publish(events.ACQUIRED, grant.acquired_wall, grant.refs, grant.slots, owner_id, handle.serial)
        return handle

    def handle_of(self, serial: int) -> Handle | None:
        """Return the handle of an acquisition that holds slots; None if they were released."""
        finalizer = self._finalizers.get(serial)
        handle = None if finalizer is None else finalizer()
        return handle if isinstance(handle, Handle) else None

    def numbers(self, serial: int) -> tuple[tuple[int, ...], ...]:
        """Return the slot numbers of an acquisition on each of its limits; they are given when they are first asked for.

        Raises:
            Busy: another process is writing.
            RuntimeError: the slots were released already.
        """
        grant = self.grants.get(serial)
        if grant is not None and grant.numbers:
            return grant.numbers

        def work(txn: Transaction) -> Grant | None:
            held = self.grants.get(serial)
            if held is None:
                return None
            numbers = admission.give_numbers(txn, held, self._membership.owner_id, serial)
            return None if numbers is None else held._replace(numbers=numbers)

        numbered = None if grant is None else self._store.transact(work)
        if numbered is None:
            raise RuntimeError("the slots were released before anybody asked for their numbers")
        self.grants[serial] = numbered
        return numbered.numbers

    # ---- releasing -------------------------------------------------------------------------------------------

    def release_fast(self, handle: Handle) -> bool:
        """Release slots by one statement; return False if the general way is needed."""
        serial = handle.serial
        grant = self.grants.get(serial)
        if grant is None:
            return False
        now = self._clock.now()
        refs = grant.refs
        if (
            now > grant.acquired_boot + MAX_FAST_RELEASE_SECONDS
            or len(refs) != 1
            or refs[0].name not in self._fast_path_limits
            or refs[0].name in self._crowded
            or time.monotonic() >= self._store.database.verify_after
        ):
            return False
        try:
            released = self._store.database.execute_fast(
                RELEASE_FAST, (now, refs[0].limit_id, self._membership.owner_id, serial)
            )
        except (Busy, Damaged, StoreError):
            return False
        except BaseException:
            self.undo(handle)
            raise
        if released == 1:
            self._released(serial, grant, now)
        return released == 1

    def release(self, handle: Handle) -> bool:
        """Release an acquisition's slots, once, and admit the next waiters; return whether there was one.

        Raises:
            Busy: another process is writing; nothing was released.
        """
        serial = handle.serial
        if serial not in self.grants:
            return False  # the parent's, seen by a forked child; or released already

        def work(txn: Transaction) -> tuple[Grant, bool, float, bool]:
            # The store may have been opened anew for this transaction, which notes grants under other numbers.
            grant = self.grants[serial]
            limit_ids = [ref.limit_id for ref in grant.refs]
            was_held = admission.release(txn, limit_ids, self._membership.owner_id, serial)
            return grant, was_held, txn.now, bool(txn.admitted)

        grant, was_held, now, was_handed_off = self._store.transact(work)
        if not was_handed_off and len(grant.refs) == 1:
            self._crowded.discard(grant.refs[0].name)
        if was_held:
            self._released(serial, grant, now)
        else:
            self._forget(serial)
        return was_handed_off

    def _released(self, serial: int, grant: Grant, now: float) -> None:
        self._forget(serial)
        if events.subscribers:
            released_wall = grant.acquired_wall + (now - grant.acquired_boot)  # as the history has it
            owner_id = self._membership.owner_id
            events.publish(events.RELEASED, released_wall, grant.refs, grant.slots, owner_id, serial)

    def undo(self, handle: Handle) -> None:
        """Undo an acquisition that was interrupted, now or as soon as the store allows."""
        try:
            self._undo(handle.serial, handle.limit_ids, handle.ticket)
        except Exception:
            self.release_later(handle)
        except BaseException:  # interrupted again
            self.release_later(handle)
            raise

    def _undo(self, serial: int, limit_ids: tuple[int, ...] | None, ticket: int | None) -> None:
        def work(txn: Transaction) -> None:
            # The store may have been opened anew for this transaction, which notes grants under other numbers.
            grant = self.grants.get(serial)
            ids = limit_ids if grant is None else tuple(ref.limit_id for ref in grant.refs)
            cleanup.undo(txn, self._membership.owner_id, serial, ids, ticket)

        was_refused = ticket is None and limit_ids == () and serial not in self.grants
        if self._membership.has_joined and not was_refused:
            self._store.transact(work)
        self._forget(serial)

    def release_later(self, handle: Handle) -> None:
        """Release in the background, and keep trying: until it succeeds, or this process's death does it."""
        self._background.add(handle.serial, handle.limit_ids, handle.ticket)

    def _release_lost(self) -> None:
        for serial in self._finalizers.take_lost():
            self._lost.add(serial)
            self._background.add(serial, None, None)

    def _forget(self, serial: int) -> None:
        """Forget the local record of an acquisition that holds nothing (any more)."""
        self.grants.pop(serial, None)
        self._finalizers.pop(serial, None)
        self._lost.discard(serial)

    # ---- around transactions, and forks ----------------------------------------------------------------------

    def accept_row(self, ticket: int) -> None:
        """Have the row of a waiter whose outcome this process knows deleted by its next transaction."""
        self._accepted.add(ticket)

    def delete_accepted(self, txn: Transaction) -> None:
        """Delete the rows of waiters that have served."""
        txn.accepted = tuple(self._accepted)
        for ticket in txn.accepted:
            txn.ledger.delete_waiter(ticket, self._membership.owner_id)

    def forget_accepted(self, txn: Transaction) -> None:
        """Forget the waiters whose rows a transaction has deleted, once that is certain."""
        self._accepted.difference_update(txn.accepted)

    def forget_definitions(self) -> None:
        """Look at limits anew before the fast statements are used on them."""
        self._fast_path_limits.clear()
        self._crowded.clear()

    def on_joined(self, txn: Transaction) -> None:
        """Note in a store that this process has just joined what it really holds."""
        self._fast_path_limits.clear()
        self._accepted.clear()
        in_flight = (self._finalizers.keys() | self._lost) - self.grants.keys()
        self.grants.update(cleanup.reinsert_grants(txn, self._membership.owner_id, self.grants, in_flight))

    @property
    def has_unfinished(self) -> bool:
        """Whether the store may hold something for this process that no grant tells: calls that are under way."""
        return bool(self._finalizers or self._lost)

    def forget_grants(self) -> None:
        """Forget whatever is held without releasing it: it is the parent's, or goes back with the end of the process."""
        self.grants.clear()
        self._finalizers.clear()
        self._background.clear()
