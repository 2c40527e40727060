"""Who gets in next: the rules applied to the rows, inside one transaction.

Requests on a limit are served strictly in order of arrival: the first one blocks those behind it even where they
would fit, for otherwise a stream of small requests starves a big one. A request over several limits waits its turn
in each queue and takes nothing until it is first in all of them and fits in all of them.

Every function takes a `Turn`, so that anybody can run the same hand-over for others: who gives slots back, who finds
a dead owner, who changes a limit, or the first in a queue whose slots have drained.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from localconc._engine import rules
from localconc._engine.definitions import define, redefine
from localconc._engine.model import (
    CONCURRENCY,
    RATE_LIMIT,
    Hold,
    LimitRow,
    Request,
    Share,
    shares_from_json,
    shares_to_json,
)
from localconc._engine.schema import GRANTED, WAITING
from localconc._engine.wakeup import Signal
from localconc.errors import ConcurrencySlotAcquisitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from localconc._engine.model import Party, WaiterRow
    from localconc._engine.owners import OwnerRow
    from localconc._engine.turn import Turn


class Obstacle(NamedTuple):
    """Why a request can't be admitted now; `until` tells when it can, if only decay stands before it."""

    until: float | None


# ---- which limits a request has to respect ---------------------------------------------------------------------------


def resolve(turn: Turn, request: Request) -> list[LimitRow]:
    """The limits that are enforced for a request; missing ones are created where it says so.

    Raises:
        ConcurrencySlotAcquisitionError: the request can never be admitted as things are.
    """
    found = [(name, _find_or_create(turn, name, request)) for name in request.names]
    enforced = [row for _, row in found if row is not None and row.active]
    if request.strict and len(enforced) < len(found):
        idle = ", ".join(repr(name) for name, row in found if row is None or not row.active)
        raise ConcurrencySlotAcquisitionError(
            f"strict=True, and not enforced (missing or inactive): {idle}. Create or enable them, or pass limit=…"
        )
    too_small = [row for row in enforced if 0 < row.limit < request.slots]
    if too_small:
        sizes = ", ".join(f"{row.name!r} has {row.limit}" for row in too_small)
        raise ConcurrencySlotAcquisitionError(
            f"occupy={request.slots} is more than the limit allows at any time: {sizes} slot(s)."
        )
    if request.mode == RATE_LIMIT:
        steady = [repr(row.name) for row in enforced if row.decay == 0]
        if steady:
            raise ConcurrencySlotAcquisitionError(
                f"rate_limit needs limits with slot decay; these have none: {', '.join(steady)}. "
                "Set slot_decay_per_second on them, or use concurrency."
            )
    return enforced


def _find_or_create(turn: Turn, name: str, request: Request) -> LimitRow | None:
    row = turn.ledger.limit_named(name)
    if row is not None and row.configured:
        _warn_where_stored_differs(turn, row, request)
        return row
    if request.create_if_missing and request.limit is not None:
        decay = request.slot_decay_per_second or 0.0
        if row is None:
            return define(turn, name, limit=request.limit, active=True, configured=True, decay=decay)
        return redefine(turn, row, row._replace(limit=request.limit, active=True, configured=True, decay=decay))
    if row is None and request.create_if_missing and not request.strict:
        row = define(turn, name, limit=1, active=False, configured=False, decay=0.0)
    if not request.strict:
        turn.warnings.append(
            (
                "not configured",
                name,
                f"The limit {name!r} is not configured, so it is not enforced. Set it with "
                f"localconc.ensure_limit({name!r}, limit=N), or pass limit=N to the call.",
            )
        )
    return row


def _warn_where_stored_differs(turn: Turn, row: LimitRow, request: Request) -> None:
    asked = []
    if request.limit is not None and request.limit != row.limit:
        asked.append(f"limit={request.limit}, stored: {row.limit}")
    if request.slot_decay_per_second is not None and request.slot_decay_per_second != row.decay:
        asked.append(f"slot_decay_per_second={request.slot_decay_per_second}, stored: {row.decay}")
    if request.limit is not None and not row.active:
        asked.append("stored: inactive, so it is not enforced")
    if asked:
        turn.warnings.append(
            (
                "differs",
                row.name,
                f"The limit {row.name!r} differs from what the call says; what is stored wins: {'; '.join(asked)}",
            )
        )


# ---- taking and giving back ------------------------------------------------------------------------------------------


def obstacle(slots: int, rows: Iterable[LimitRow], now: float, ticket: int | None) -> Obstacle | None:
    """What keeps a request out: somebody before it in a queue, or no room; None if it can be admitted."""
    for row in rows:
        if row.first_ticket is not None and (ticket is None or row.first_ticket < ticket):
            return Obstacle(None)
    return shortage(slots, rows, now)


def shortage(slots: int, rows: Iterable[LimitRow], now: float) -> Obstacle | None:
    """What keeps a request out whose turn it is: no room in one of its limits."""
    until = now
    for row in rows:
        if row.limit == 0:
            return Obstacle(None)
        if row.decay > 0:
            if not rules.fits(rules.occupied_slots(row.empty_at, now, row.decay), slots, row.limit):
                until = max(until, rules.fits_at(row.empty_at, slots, row.limit, row.decay))
        elif not rules.fits(row.held, slots, row.limit):
            return Obstacle(None)
    return Obstacle(until) if until > now else None


def grant(turn: Turn, request: Request, rows: list[LimitRow], party: Party) -> list[Share]:
    """Take the slots of every limit."""
    shares = []
    for row in rows:
        share = Share.of(row)
        drained_at = None
        if row.decay > 0:
            drained_at = rules.empty_at_after(row.empty_at, turn.now, request.slots, row.decay)
            turn.set_empty_at(row.id, drained_at)
        if request.mode == CONCURRENCY:
            turn.ledger.insert_holder(share, party, request.slots, turn.wall, turn.now, drained_at)
        else:
            turn.ledger.record(share, party, request.slots, turn.wall)
        shares.append(share)
    return shares


def give_back(turn: Turn, shares: Iterable[Share], owner_id: int, serial: int) -> bool:
    """Give one acquisition's slots back and hand them to the next in line; False if it holds none (any more)."""
    released = [share.limit_id for share in shares if turn.release(share.limit_id, owner_id, serial)]
    hand_over(turn, released)
    return bool(released)


def deny(turn: Turn, request: Request, rows: list[LimitRow]) -> float:
    """Count a refused attempt; returns after how many seconds a retry is worth while (Prefect's Retry-After)."""
    estimates = []
    for row in rows:
        denied = rules.denied_slots(row.denied, row.denied_at, turn.now, row.decay, row.average)
        blocking = rules.blocking_slots(request.slots, denied, row.limit, row.decay)
        estimates.append((blocking, blocking * rules.seconds_per_slot(row.decay, row.average)))
        turn.ledger.set_denied(row.id, denied + request.slots, turn.now)
    return max(estimates)[1] if estimates else 0.0


# ---- the queue -------------------------------------------------------------------------------------------------------


def hand_over(turn: Turn, limit_ids: Iterable[int]) -> None:
    """Admit from the queues of these limits whoever can be admitted, in order."""
    pending = deque(dict.fromkeys(limit_ids))
    while pending:
        limit_id = pending.popleft()
        first = turn.ledger.next_in_line(limit_id)
        if first is None:
            continue
        if not first.is_plain:
            pending.extend(_hand_over_to_first(turn, limit_id))
        elif rules.fits(first.held, first.slots, first.limit):
            turn.ledger.admit_plainly(first.ticket, turn.wall, turn.now)
            turn.signals.append((first.address, Signal(first.ticket, first.secret, turn.wall, turn.now)))
            if first.held + first.slots < first.limit:
                pending.append(limit_id)


def next_due(turn: Turn, limit_ids: Iterable[int]) -> float | None:
    """When somebody who is first in one of these queues can be admitted, if only decay stands before it."""
    moments = []
    for limit_id in limit_ids:
        first = turn.ledger.first_waiter(limit_id)
        if first is not None:
            waiter, _ = first
            rows = turn.ledger.limits_with_ids(waiter.queued_on)
            hindered = obstacle(waiter.slots, rows, turn.now, waiter.ticket)
            if hindered is not None and hindered.until is not None:
                moments.append(hindered.until)
    return min(moments, default=None)


def _hand_over_to_first(turn: Turn, limit_id: int) -> list[int]:
    """Admit the first in a queue if it can be admitted; returns the limits whose next in line may get in, too."""
    first = turn.ledger.first_waiter(limit_id)
    if first is None:
        return []
    waiter, row = first
    if waiter.queued_on == [limit_id]:
        rows = [row]
        hindered = shortage(waiter.slots, rows, turn.now)
    else:
        rows = turn.ledger.limits_with_ids(waiter.queued_on)
        hindered = obstacle(waiter.slots, rows, turn.now, waiter.ticket)
    if hindered is None:
        _admit(turn, waiter, rows)
        return [row.id for row in rows if row.decay > 0 or row.held + waiter.slots < row.limit]
    if hindered.until is not None:
        turn.signals.append((waiter.address, Signal(waiter.ticket)))  # it is first now: let it set its alarm
    return []


def _admit(turn: Turn, waiter: WaiterRow, rows: list[LimitRow]) -> None:
    shares = grant(turn, Request.from_text(waiter.request), rows, waiter.party)
    if len(rows) > 1:
        turn.ledger.leave_queues(waiter)  # of one limit, it leaves by being answered
    answer = None if waiter.answer is None else shares_to_json(shares)
    turn.ledger.admit_waiter(waiter.ticket, turn.wall, turn.now, answer)
    secret = waiter.secret if answer is None else 0  # let it look where the answer says more than that it was admitted
    turn.signals.append((waiter.address, Signal(waiter.ticket, secret, turn.wall, turn.now)))


def settle(turn: Turn) -> None:
    """Answer everybody who waits on a limit that was changed in this turn, as if they had just called."""
    while turn.unsettled or turn.changed:
        tickets, turn.unsettled = turn.unsettled, []
        changed, turn.changed = turn.changed, []
        for ticket in sorted(set(tickets)):
            _reconsider(turn, ticket)
        hand_over(turn, changed)


def _reconsider(turn: Turn, ticket: int) -> None:
    """Answer one waiter as if it had just called, in its place in line."""
    waiter = turn.ledger.waiter(ticket)
    if waiter is None or waiter.state != WAITING:
        return
    try:
        rows = resolve(turn, Request.from_text(waiter.request))
    except ConcurrencySlotAcquisitionError as error:
        turn.ledger.leave_queues(waiter)
        turn.ledger.refuse_waiter(ticket, str(error))
        turn.signals.append((waiter.address, Signal(ticket)))
        hand_over(turn, waiter.queued_on)
        return
    turn.ledger.requeue(waiter, [row.id for row in rows])
    if not rows:
        _admit(turn, waiter._replace(limit_ids="", answer=""), [])
    hand_over(turn, [*waiter.queued_on, *(row.id for row in rows)])


def withdraw(turn: Turn, ticket: int, owner_id: int) -> None:
    """Take a request out of the line, whatever it came to; slots it was granted go to the next."""
    waiter = turn.ledger.waiter(ticket)
    if waiter is None or waiter.owner_id != owner_id:
        return
    limit_ids = turn.ledger.leave_queues(waiter)
    turn.ledger.delete_waiters([ticket], owner_id)
    if waiter.state == GRANTED:
        _give_back_whatever(turn, owner_id, waiter.serial)
    hand_over(turn, limit_ids)


def abandon(turn: Turn, owner_id: int, serial: int) -> None:
    """Undo an acquisition that was interrupted, however far it got."""
    for waiter in turn.ledger.waiters_of(owner_id):
        if waiter.serial == serial:
            withdraw(turn, waiter.ticket, owner_id)
    _give_back_whatever(turn, owner_id, serial)


def _give_back_whatever(turn: Turn, owner_id: int, serial: int) -> None:
    limit_ids = [limit_id for limit_id, held in turn.ledger.limits_held_by(owner_id) if held == serial]
    for limit_id in limit_ids:
        turn.release(limit_id, owner_id, serial)
    hand_over(turn, limit_ids)


def granted_hold(waiter: WaiterRow, as_queued: tuple[Share, ...]) -> Hold:
    """What a waiter was granted: what it queued for, unless the limits were changed meanwhile."""
    assert waiter.admitted_at is not None
    assert waiter.admitted_since is not None
    shares = as_queued if waiter.answer is None else shares_from_json(waiter.answer)
    return Hold(shares, waiter.slots, waiter.admitted_at, waiter.admitted_since, waiter.thread)


def take_along(turn: Turn, hold: Hold, party: Party) -> Hold:
    """Note what a process holds in a store that replaced the one it was taken in: more than a limit, if need be."""
    shares = []
    for taken in hold.shares:
        row = turn.ledger.limit_named(taken.name)
        if row is not None and row.active:
            drained_at = None
            if row.decay > 0:
                drained_at = rules.empty_at_after(row.empty_at, hold.since, hold.slots, row.decay)
                turn.set_empty_at(row.id, drained_at)
            share = Share.of(row)
            turn.ledger.insert_holder(share, party, hold.slots, hold.acquired_at, hold.since, drained_at)
            shares.append(share)
    return hold._replace(shares=tuple(shares))


def reap(turn: Turn, owner: OwnerRow) -> None:
    """Give back everything that a dead process held or waited for."""
    held = turn.ledger.limits_held_by(owner.id)
    for limit_id, serial in held:
        turn.release(limit_id, owner.id, serial)
    left = [limit_id for limit_id, _ in held]
    for waiter in turn.ledger.waiters_of(owner.id):
        left += turn.ledger.leave_queues(waiter)
        turn.ledger.delete_waiters([waiter.ticket], owner.id)
    turn.ledger.delete_owner(owner.id)
    hand_over(turn, left)


def after_reboot(turn: Turn) -> None:
    """Nobody of before lives; what decays goes on by the wall clock."""
    turn.ledger.forget_everybody()
    for limit_id, empty_at_wall in turn.ledger.decaying_on_wall():
        row = turn.ledger.limit_with_id(limit_id)
        if row is not None and row.decay > 0:
            most = max(row.limit, 1)
            empty_at = rules.empty_at_after_reboot(empty_at_wall, turn.wall, turn.now, most, row.decay)
            turn.set_empty_at(limit_id, empty_at)
