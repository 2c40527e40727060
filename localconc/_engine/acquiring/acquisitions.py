"""One try of this process to acquire slots in a store, or to release them, without waiting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from localconc._engine import events
from localconc._engine.acquiring.fast_path import FastPath, FastPaths, acquire_all, release_all
from localconc._engine.acquiring.terms import Deadlocked, Queued, Refused, WaitTerms, new_queued
from localconc._engine.acquiring.unadmitted import enqueue, refuse
from localconc._engine.core.calls import Request
from localconc._engine.core.clock import monotonic
from localconc._engine.core.errors import Busy, Damaged
from localconc._engine.core.records import Grant, LimitRef, Requester, new_grant, new_requester
from localconc._engine.holding.holdings import Handle
from localconc._engine.queue import admission
from localconc._engine.queue.turns import blocked
from localconc._engine.store.rows.statements import ACQUIRE_FAST, ENQUEUE_FAST, HAND_OVER, RATE_LIMIT_FAST, RELEASE_FAST
from localconc._engine.store.store import Transaction
from localconc.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.core.clock import Clock
    from localconc._engine.core.records import LimitRow
    from localconc._engine.holding.holdings import Holdings
    from localconc._engine.liveness.membership import Membership
    from localconc._engine.store.store import Store

#: After this long a waiter is likely, so the first try is to hand over to one.
HAND_OVER_AFTER_SECONDS: Final = 0.0005

#: What a release comes to. With the first, the rules are needed.
NOT_RELEASED, RELEASED, HANDED_OVER = 0, 1, 2

#: A grant that is picked up later than this may have been taken back: the process was stopped when it was granted.
#: It is less than `liveness.reaper.PICK_UP_SECONDS`, by more than the clocks of two processes differ.
MAX_PICK_UP_SECONDS: Final = 0.8


class Acquisitions:
    """The tries of this process to acquire and release in one store.

    While this process knows the definitions, fast statements serve `concurrency` on enforced limits without decay, and
    `rate_limit` on those with decay. All else goes by the rules of `queue.admission`.
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
        self._fast_paths = FastPaths()

    def forget_definitions(self) -> None:
        """Forget the limits that the fast statements serve; the rules look at each of them anew."""
        self._fast_paths.forget()

    # ---- acquiring -------------------------------------------------------------------------------------------

    def acquire_fast(self, request: Request, thread: str, context: int) -> Handle | None:
        """Acquire slots by the fast statements; return None if the rules are needed."""
        database = self._store.database
        with database.lock:  # another thread may make this process join another store; the time is read under it, too
            if monotonic() >= database.verify_after and not (database.is_in_place() or self._store.is_usable()):
                return None  # `try_acquire` raises, and says what is wrong
            path = self._fast_paths.by_request.get(request)
            if path is None:
                return None
            if len(path.refs) > 1:
                handle = self._acquire_all(request, thread, context)
            elif path.limit_ids:
                handle = self._acquire_one(request, path, thread, context)
            else:
                handle = self._take_one(request, path, thread, context)
        if handle is not None and events.subscribers:
            self._holdings.publish_acquired(handle)
        return handle

    def _acquire_one(self, request: Request, path: FastPath, thread: str, context: int) -> Handle | None:
        refs, limit_ids, (begin,) = path
        wall, now, slots, label = self._clock.wall(), self._clock.now(), request.slots, request.label
        owner_id, holdings = self._membership.owner_id, self._holdings
        handle = holdings.begin(thread, label, context)
        serial = handle.serial
        handle.limit_ids = limit_ids
        handle.grant = grant = new_grant((refs, slots, wall, now, 0.0, thread, label, context, ()))
        holdings.grants[serial] = grant
        holder = (*begin, owner_id, serial, slots, wall, now, thread, label or None, context)
        acquired = 0
        try:
            acquired = self._store.database.execute_fast(ACQUIRE_FAST, holder)
        except (Busy, Damaged):
            pass
        except BaseException:
            holdings.undo(handle)
            raise
        if acquired == 1:
            return handle
        holdings.forget(serial)
        self._fast_paths.by_request.pop(request, None)
        return None

    def _take_one(self, request: Request, path: FastPath, thread: str, context: int) -> Handle | None:
        """Take slots of one limit with decay by the fast statement. There is nothing to undo: nobody releases them."""
        refs, _, (begin,) = path
        wall, now, slots, label = self._clock.wall(), self._clock.now(), request.slots, request.label
        handle = Handle()
        handle.serial = serial = self._holdings.next_serial()
        grant = new_grant((refs, slots, wall, now, 0.0, thread, label, context, ()))
        handle.grant = grant if events.subscribers else None
        call = (*begin, self._membership.owner_id, serial, slots, wall, now, thread, label or None, context)
        try:
            if self._store.database.execute_fast(RATE_LIMIT_FAST, call) >= 0:
                return handle
        except (Busy, Damaged):
            pass
        self._fast_paths.by_request.pop(request, None)
        return None

    def _acquire_all(self, request: Request, thread: str, context: int) -> Handle | None:
        """Acquire slots of several limits by the fast statements; return None if the rules are needed."""
        handle = self._holdings.begin(thread, request.label, context)
        grant = None
        try:
            what = (self._membership, self._clock, self._fast_paths, request, handle)
            grant = self._store.database.transact("BEGIN IMMEDIATE", acquire_all, what)
        except (Busy, Damaged, StoreError):
            pass
        except BaseException:
            self._holdings.undo(handle)
            raise
        if grant is None:
            self._holdings.forget(handle.serial)
            self._fast_paths.by_request.pop(request, None)
            return None
        self._holdings.hold(handle, grant, request)
        return handle

    def try_acquire(
        self, request: Request, handle: Handle, terms: WaitTerms | None, *, is_retry: bool = False
    ) -> Handle | Queued | Refused | Deadlocked:
        """Acquire the slots, or enqueue the request (if the caller waits), or count a refusal.

        Args:
            terms: how the caller waits; None if it tries once.
            is_retry: whether an earlier try of this request was counted as a refusal.

        Raises:
            Busy: another process is writing; nothing was done.
            ConcurrencySlotAcquisitionError: the limits can never admit the request as they are.
        """
        if terms is not None and not terms.needs_estimate and (terms.has_end or not terms.stops):
            outcome = self.enqueue_fast(request, handle, terms)
            if outcome is not None:
                return outcome
        return self.try_by_rules(request, handle, terms, is_retry=is_retry)

    def enqueue_fast(self, request: Request, handle: Handle, terms: WaitTerms) -> Handle | Queued | None:
        """Queue a simple request by one statement, or acquire by another; return None if the rules are needed.

        Raises:
            Busy: another process is writing; nothing was done.
        """
        database, paths = self._store.database, self._fast_paths
        with database.lock:
            if monotonic() >= database.verify_after and not database.is_in_place():
                database.ensure_open()
            known = paths.to_queue.get(request) or paths.find_to_queue(request)  # now: it may have joined another store
            if known is None:
                return None
            (ref, text), owner_id, serial = known, self._membership.owner_id, handle.serial
            wall, now, slots, limit_id = self._clock.wall(), self._clock.now(), request.slots, ref.limit_id
            thread, label, context = handle.thread, handle.label, handle.context
            secret = int.from_bytes(os.urandom(7)) + 1
            handle.limit_ids = None
            what = (owner_id, serial, slots)
            how = (text, thread, context, terms.has_end, terms.mailbox.address, secret, wall, now)
            waiter = (*what, *how, limit_id, ref.revision, now, slots)
            holder = (limit_id, ref.revision, ref.limit, *what, wall, now, thread, label or None, context)
            try:
                queued, acquired = database.execute_either_fast(ENQUEUE_FAST, waiter, ACQUIRE_FAST, holder)
            except Busy:
                handle.limit_ids = ()
                raise
            if queued is not None:
                handle.ticket = queued[0]  # before `limit_ids`: with these and no ticket, it counts as not queued
                handle.limit_ids = (limit_id,)
                if ref.name not in paths.contended:
                    paths.note_contention(request)
                requester = new_requester((owner_id, serial, thread, label, context))
                return new_queued((queued[0], secret, requester, (ref,), terms, True, now, None, 0.0))
            if acquired != 1:
                paths.forget_to_queue(request)
                return None
            handle.limit_ids = (limit_id,)
            grant = new_grant(((ref,), slots, wall, now, 0.0, thread, label, context, ()))
            self._holdings.hold(handle, grant, request)
            paths.remember(request, grant.refs)
        return self._holdings.publish_acquired(handle)

    def try_by_rules(
        self, request: Request, handle: Handle, terms: WaitTerms | None, *, is_retry: bool = False
    ) -> Handle | Queued | Refused | Deadlocked:
        """Do what `try_acquire` does, by the rules at once."""

        def work(txn: Transaction) -> tuple[Grant | Queued | Refused | Deadlocked, list[LimitRow]]:
            handle.limit_ids = None
            requester = Requester(self._membership.owner_id, handle.serial, handle.thread, handle.label, handle.context)
            rows = admission.resolve(txn, request, requester.owner_id)
            if any(row.decay > 0 and row.first_ticket is not None for row in rows):
                limit_ids = [row.id for row in rows]
                admission.admit_waiters(txn, limit_ids, has_new_first=False)  # whose slots have drained since
                rows = txn.ledger.limits_with_ids(limit_ids)
            block = blocked(request.slots, rows, txn.now, None)
            if block is None:
                refs = admission.grant(txn, request, rows, requester)
                grant = Grant(refs, request.slots, txn.wall, txn.now, 0.0, handle.thread, handle.label, handle.context)
                return grant, rows
            if terms is None:
                return refuse(txn, request, requester, rows, is_retry), rows
            being_released = self._holdings.being_released
            return enqueue(txn, request, requester, rows, terms, block.until, being_released), rows

        def note(result: tuple[Grant | Queued | Refused | Deadlocked, list[LimitRow]]) -> None:
            outcome, rows = result
            self._fast_paths.learn(LimitRef.of(row) for row in rows)
            if isinstance(outcome, Queued):
                handle.ticket = outcome.ticket
                self._fast_paths.note_contention(request)
            handle.limit_ids = () if isinstance(outcome, (Refused, Deadlocked)) else tuple(row.id for row in rows)
            if isinstance(outcome, Grant):
                self._fast_paths.remember(request, outcome.refs)
                self._holdings.hold(handle, outcome, request)

        outcome, _ = self._store.transact(work, note)
        return self._holdings.publish_acquired(handle) if isinstance(outcome, Grant) else outcome

    def accept_wakeup(
        self, request: Request, queued: Queued, handle: Handle, wakeup: tuple[int, int, float, float]
    ) -> Handle | None:
        """Accept a grant that a wakeup proves; return None if the caller has to look at the store.

        The secret of the waiter's row proves the grant, unless the wakeup is old: another process may have taken the
        slots back, because this one was stopped. This writes the acknowledgement before it reads the clock. So either
        the other process sees the acknowledgement, or this one sees that it is late.
        """
        serial, secret, acquired_wall, acquired_boot = wakeup
        owner = self._membership.owner
        is_proven = serial == handle.serial and secret == queued.secret and secret != 0
        if owner is None or not is_proven or not owner.acknowledge(serial):
            return None
        late = self._clock.now() - acquired_boot
        if not -MAX_PICK_UP_SECONDS < late < MAX_PICK_UP_SECONDS:
            return None
        waited, caller = max(0.0, acquired_boot - queued.enqueued_boot), (handle.thread, handle.label, handle.context)
        grant = new_grant((queued.refs, request.slots, acquired_wall, acquired_boot, waited, *caller, ()))
        with self._store.database.lock:
            if self._membership.generation != queued.terms.generation:
                return None  # the store of this grant was replaced meanwhile
            if not queued.is_simple:
                self._store.delete_later(queued.ticket)
            self._holdings.hold(handle, grant, request)
        return self._holdings.publish_acquired(handle) if events.subscribers else handle

    # ---- releasing -------------------------------------------------------------------------------------------

    def release_fast(self, handle: Handle) -> int:
        """Release slots by one statement, which may hand them over to a waiter; `NOT_RELEASED` asks for the rules.

        Raises Busy if another process is writing; then nothing was released.
        """
        serial, holdings, database = handle.serial, self._holdings, self._store.database
        outcome = NOT_RELEASED
        try:
            with database.lock:  # another thread may make this process join another store, or release these slots
                grant = holdings.grants.get(serial)
                if grant is None or (monotonic() >= database.verify_after and not database.has_its_files()):
                    return NOT_RELEASED
                now, refs, owner_id = self._clock.now(), grant.refs, self._membership.owner_id
                if len(refs) == 1 and not refs[0].decay:
                    name, limit_id = refs[0].name, refs[0].limit_id
                    release = (now, limit_id, owner_id, serial)
                    if now > grant.acquired_boot + HAND_OVER_AFTER_SECONDS or name in self._fast_paths.contended:
                        wall = self._clock.wall()
                        change = (wall, now, owner_id, serial, limit_id, owner_id, serial, now)
                        woken, outcome = database.execute_either_fast(HAND_OVER, change, RELEASE_FAST, release, True)
                        if woken is not None:  # first of all: the waiter's time begins
                            address, waiter_serial, secret = woken
                            self._wake([(address, (waiter_serial, secret, wall, now))])
                            outcome = HANDED_OVER
                        elif outcome == RELEASED:
                            self._fast_paths.contended.discard(name)
                    else:
                        outcome = max(NOT_RELEASED, database.execute_fast(RELEASE_FAST, release, True))
                elif not self._fast_paths.need_rules(refs):  # a loop here could leave the lock taken: see `ENDLESSLY`
                    what = (self._membership, now, holdings.grants, serial)
                    outcome = int(database.transact("BEGIN IMMEDIATE", release_all, what))
                if outcome:
                    holdings.forget(serial)
        except (Damaged, StoreError):  # the rules raise it, too, and so say what is wrong
            return NOT_RELEASED
        except Busy:
            raise
        except BaseException:
            holdings.undo(handle)
            raise
        if outcome and events.subscribers:
            holdings.publish_released(serial, grant, now)
        return outcome

    def release(self, handle: Handle) -> bool:
        """Release an acquisition's slots, once, and admit the next waiters; return whether there were any.

        Raises:
            Busy: another process is writing; nothing was released.
        """
        return (self.release_fast(handle) or self.release_by_rules(handle)) == HANDED_OVER

    def release_by_rules(self, handle: Handle) -> int:
        """Release an acquisition's slots, once, if `release_fast` can't; or raise Busy, with nothing released."""
        serial, grants = handle.serial, self._holdings.grants
        if serial not in grants:
            return RELEASED  # before, or these are the slots of the parent of this forked child

        def work(txn: Transaction) -> tuple[Grant | None, bool]:
            grant = grants.get(serial)  # read here: this process may just have joined another store, with other numbers
            if grant is None:
                return None, False  # another thread has released it meanwhile
            held = [ref.limit_id for ref in grant.refs if txn.release(ref.limit_id, self._membership.owner_id, serial)]
            admission.admit_waiters(txn, held)
            return grant, bool(held)

        def note(_: object) -> None:
            self._holdings.forget(serial)

        (grant, was_held), txn = self._store.transact_with_effects(work, note)
        if grant is not None and was_held:
            self._holdings.publish_released(serial, grant, txn.now)
        return HANDED_OVER if txn.admitted else RELEASED
