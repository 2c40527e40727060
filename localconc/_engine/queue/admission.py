"""Admitting requests: which limits count, what a grant changes, which waiters are next.

A limit serves requests strictly in the order of arrival. The first one blocks those behind it, even if they would fit;
otherwise a stream of small requests would starve a big one. A request over several limits waits in each queue, and
takes nothing until it is the first in all of them and fits in all of them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from localconc._engine.core import rules
from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT, STRICT, Request, strict_default
from localconc._engine.core.records import LimitRef
from localconc._engine.queue.clocks import with_possible_moments
from localconc._engine.queue.definitions import define, redefine
from localconc._engine.queue.turns import Queues
from localconc._engine.store.rows.schema import WAITING
from localconc.errors import ConcurrencySlotAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from localconc._engine.core.records import LimitRow, Requester, WaiterRow
    from localconc._engine.store.store import Transaction

#: The kind of warning for a call whose limit does not exist.
NOT_CONFIGURED: Final = "not configured"


# ---- which limits count ----------------------------------------------------------------------------------------------


def resolve(txn: Transaction, request: Request, owner_id: int) -> list[LimitRow]:
    """Return the limits that are enforced for a request; create missing ones if it says so.

    Raises:
        ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
    """
    found = [(name, _find_or_create(txn, name, request, owner_id)) for name in request.names]
    enforced = [with_possible_moments(txn, row) for _, row in found if row is not None and row.active]
    if request.strict and len(enforced) < len(found):
        idle = [(name, row) for name, row in found if row is None or not row.active]
        raise ConcurrencySlotAcquisitionError(_not_enforced(idle, request))
    too_small = [row for row in enforced if 0 < row.limit < request.slots]
    if too_small:
        sizes = ", ".join(f"{row.name!r} has only {row.limit} slot(s)" for row in too_small)
        raise ConcurrencySlotAcquisitionError(
            f"occupy={request.slots} can never be satisfied: it is more than the limit allows at any time; {sizes}."
        )
    if request.mode == RATE_LIMIT:
        steady = [repr(row.name) for row in enforced if row.decay == 0]
        if steady:
            raise ConcurrencySlotAcquisitionError(
                f"rate_limit needs limits with slot decay; these have none: {', '.join(steady)}. "
                "Set slot_decay_per_second on them, or use concurrency."
            )
    return enforced


def _not_enforced(found: list[tuple[str, LimitRow | None]], request: Request) -> str:
    """Return the words that refuse a strict call, for limits that are missing or inactive."""
    names = ", ".join(repr(name) for name, _ in found)
    undefined = [repr(name) for name, row in found if row is None or not row.configured]
    inactive = [repr(name) for name, row in found if row is not None and row.configured]
    remedies = []
    if undefined:
        passed = "limit=N" if request.limit is None else "create_if_missing=True"
        remedies.append(f"Create {', '.join(undefined)} with localconc.ensure_limit, or pass {passed} to the call.")
    if inactive:
        remedies.append(f"Enable {', '.join(inactive)} with localconc.update_limit(…, active=True).")
    cause = f"strict=True{f' by {STRICT}' if strict_default() else ''}"
    return f"{cause}, but these limits are missing or inactive: {names}. {' '.join(remedies)}"


def _find_or_create(txn: Transaction, name: str, request: Request, owner_id: int) -> LimitRow | None:
    row = txn.ledger.limit_named(name)
    if row is not None and row.configured:
        if not row.declared:
            _warn_if_calls_differ(txn, row, request, owner_id)
        return row
    if request.create_if_missing and request.limit is not None:
        decay = request.slot_decay_per_second or 0.0
        if row is None:
            return define(txn, name, limit=request.limit, active=True, configured=True, declared=False, decay=decay)
        new = row._replace(limit=request.limit, active=True, configured=True, declared=False, decay=decay)
        return redefine(txn, row, new)
    if row is None and request.create_if_missing and not request.strict:
        row = define(txn, name, limit=1, active=False, configured=False, declared=False, decay=0.0)
    if not request.strict:
        _warn_not_configured(txn, name, owner_id)
    return row


def warn_of_missing(txn: Transaction, request: Request, owner_id: int) -> None:
    """Warn of the limits that a request goes ahead without, because they were never defined, or were deleted."""
    for name in request.names:
        row = txn.ledger.limit_named(name)
        if row is None or not row.configured:
            _warn_not_configured(txn, name, owner_id)


def _warn_not_configured(txn: Transaction, name: str, owner_id: int) -> None:
    message = (
        f"localconc: the limit {name!r} is not configured, so it is not enforced. Set it with "
        f"localconc.ensure_limit({name!r}, limit=N), or pass limit=N to the call."
    )
    txn.warnings.append((owner_id, NOT_CONFIGURED, name, message))


def _warn_if_calls_differ(txn: Transaction, row: LimitRow, request: Request, owner_id: int) -> None:
    """Warn of two calls that disagree about `limit=`. A limit that an operator declared wins without a warning."""
    asked = []
    if request.limit is not None and request.limit != row.limit:
        asked.append(f"limit={request.limit} in this call is ignored, the limit has {row.limit}")
    if request.slot_decay_per_second is not None and request.slot_decay_per_second != row.decay:
        asked.append(
            f"slot_decay_per_second={request.slot_decay_per_second} in this call is ignored, the limit has {row.decay}"
        )
    if asked:
        message = (
            f"localconc: two calls disagree about the limit {row.name!r}; the first one counts: {'; '.join(asked)}. "
            f"Make the calls agree, or declare the limit with localconc.ensure_limit({row.name!r}, limit=N)."
        )
        txn.warnings.append((owner_id, "differs", row.name, message))


# ---- grants and refusals ---------------------------------------------------------------------------------------------


def grant(
    txn: Transaction,
    request: Request,
    rows: Iterable[LimitRow],
    requester: Requester,
    waited_seconds: float = 0.0,
    ticket: int | None = None,
) -> tuple[LimitRef, ...]:
    """Give a requester the slots of every limit; return the limits as they are at the grant."""
    refs = []
    for row in rows:
        ref = LimitRef.of(row)
        drained_at = None
        if row.decay > 0:
            drained_at = rules.empty_at_after(row.empty_at, txn.now, request.slots, row.decay)
            txn.set_empty_at(row.id, drained_at)
        if request.mode == CONCURRENCY:
            txn.ledger.insert_holder(
                ref, requester, request.slots, txn.wall, txn.now, drained_at, waited_seconds, ticket
            )
        else:
            txn.ledger.record_rate_limited(ref, requester, request.slots, txn.wall, waited_seconds)
        refs.append(ref)
    return tuple(refs)


def deny(txn: Transaction, request: Request, rows: Collection[LimitRow], *, counts: bool = True) -> float:
    """Count a refused attempt; return after how many seconds to retry (Prefect's Retry-After)."""
    estimates = []
    for row in rows:
        denied = rules.denied_slots(row.denied, row.denied_at, txn.now, row.decay, row.average)
        blocking = rules.blocking_slots(request.slots, denied, row.limit, row.decay)
        estimates.append((blocking, blocking * rules.seconds_per_slot(row.decay, row.average)))
        if counts:
            txn.ledger.set_denied(row.id, denied + request.slots, txn.now)
    pause = max((row.paused_until - txn.now for row in rows if row.paused_until is not None), default=0.0)
    return max(pause, max(estimates)[1] if estimates else 0.0)


# ---- the queue -------------------------------------------------------------------------------------------------------


def admit_waiters(txn: Transaction, limit_ids: Iterable[int], *, has_new_first: bool = True) -> None:
    """Admit from the queues of these limits every waiter that can be admitted, in order.

    Args:
        has_new_first: whether the first waiter may not know yet that it is the first, or that its slots drain sooner.
            If it only has to wait for a moment, this sends it a wakeup, so that it sets its alarm.
    """
    is_new = dict.fromkeys(limit_ids, has_new_first)
    pending = deque(is_new)
    queues, woken = Queues(txn.ledger, txn.now), set()

    def look_again(changed: Iterable[int]) -> None:
        for limit_id in changed:
            if limit_id not in is_new:
                pending.append(limit_id)
            is_new[limit_id] = True

    while pending:
        limit_id = pending.popleft()
        has_new = is_new.pop(limit_id)
        first = queues.known_first(limit_id)
        if first is None:
            before = len(txn.admitted)
            may_admit_more = txn.admit_next(limit_id)
            if len(txn.admitted) > before:
                queues.forget([limit_id])
                look_again([limit_id] if may_admit_more else ())
                continue
            first = queues.first(limit_id) if may_admit_more else None
        if first is None:
            continue
        waiter, rows, block = first
        if block is None:
            _admit(txn, waiter, rows)
            changed = [row.id for row in rows]
            queues.forget(changed)
            look_again(changed)
        elif block.until is not None and has_new and waiter.ticket not in woken:
            woken.add(waiter.ticket)
            txn.to_wake.append((waiter.address, waiter.serial))


def next_due(txn: Transaction, limit_ids: Iterable[int]) -> float | None:
    """Return when the first waiter of one of these queues can be admitted, if it only waits for a moment."""
    moments, queues = [], Queues(txn.ledger, txn.now)
    for limit_id in limit_ids:
        first = queues.first(limit_id)
        if first is not None and first.block is not None and first.block.until is not None:
            moments.append(first.block.until)
    return min(moments, default=None)


def _admit(txn: Transaction, waiter: WaiterRow, rows: list[LimitRow]) -> None:
    """Admit a waiter by the general rules; its row stays, out of the queue, until its process has accepted."""
    if waiter.limit_ids is None:  # its process expects no row with the outcome, so no wakeup may prove the grant
        txn.ledger.requeue(waiter.ticket, waiter.queued_on)
        waiter = waiter._replace(secret=0)
    waited_seconds = max(0.0, txn.now - waiter.enqueued_boot)
    grant(txn, Request.from_text(waiter.request), rows, waiter.requester, waited_seconds, waiter.ticket)
    txn.ledger.admit_waiter(waiter.ticket, txn.wall, txn.now)
    txn.admitted.append((waiter.address, waiter.serial, waiter.secret))


def reevaluate(txn: Transaction) -> None:
    """Reevaluate every waiter whose limits changed in this transaction as if it had just called, at its old place.

    All of them join their new queues before the first one is admitted. Otherwise a waiter could overtake another one
    that is still queued on a deleted limit.
    """
    while txn.stale_tickets or txn.touched_limits:
        tickets, txn.stale_tickets = sorted(set(txn.stale_tickets)), []
        queues, txn.touched_limits = txn.touched_limits, []
        for ticket in tickets:
            queues += _reevaluate(txn, ticket)
        admit_waiters(txn, queues)


def _reevaluate(txn: Transaction, ticket: int) -> list[int]:
    """Refuse one waiter, or queue it on the limits that count now; return the queues that this concerns."""
    waiter = txn.ledger.waiter(ticket)
    if waiter is None or waiter.state != WAITING:
        return []
    before = waiter.queued_on
    try:
        rows = resolve(txn, Request.from_text(waiter.request), waiter.owner_id)
    except ConcurrencySlotAcquisitionError as error:
        txn.ledger.refuse_waiter(ticket, str(error))
        txn.to_wake.append((waiter.address, waiter.serial))
        return before
    after = [row.id for row in rows]
    if sorted(after) != sorted(before):
        txn.ledger.requeue(ticket, after)
        if not after:
            _admit(txn, waiter._replace(limit_ids="[]", secret=0), [])
    return [*before, *after]
