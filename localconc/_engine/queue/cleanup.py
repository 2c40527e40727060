"""Cleaning up after callers, processes or boots that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from localconc._engine.core import rules
from localconc._engine.core.calls import CONCURRENCY, Request
from localconc._engine.core.records import LimitRef, OwnerRow, Requester, WaiterRow, limits_text
from localconc._engine.queue import clocks
from localconc._engine.queue.admission import admit_waiters
from localconc._engine.store.rows import integrity, listings, owner_rows
from localconc._engine.store.rows.schema import GRANTED, KILLED, PASSED_OVER, UNSEEN, WAITING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from localconc._engine.core.records import Grant
    from localconc._engine.store.rows.listings import QueuedHolder
    from localconc._engine.store.store import Transaction

#: How many stopped waiters leave a queue in one transaction; each costs a look at the process table.
MAX_PASSED_OVER_TOGETHER: Final = 64


def cancel(txn: Transaction, ticket: int, owner_id: int, serial: int) -> None:
    """Delete a request in whatever state; if it was granted slots, they go to the next waiters."""
    waiter = _own_waiter(txn, ticket, owner_id, serial)
    if waiter is not None:
        _remove(txn, waiter)


def _own_waiter(txn: Transaction, ticket: int, owner_id: int, serial: int) -> WaiterRow | None:
    """Return a waiter; None if it is another one, because the process has joined another store since."""
    waiter = txn.ledger.waiter(ticket)
    return None if waiter is None or (waiter.owner_id, waiter.serial) != (owner_id, serial) else waiter


def _remove(txn: Transaction, waiter: WaiterRow) -> None:
    limit_ids = waiter.queued_on
    was_first = waiter.state == WAITING and any(
        row.first_ticket == waiter.ticket for row in txn.ledger.limits_with_ids(limit_ids)
    )
    txn.ledger.delete_waiter(waiter.ticket)
    if waiter.state == GRANTED:
        undo_grant(txn, limit_ids, waiter.owner_id, waiter.serial)
    elif was_first:
        admit_waiters(txn, limit_ids)


def undo(txn: Transaction, owner_id: int, serial: int, limit_ids: Collection[int] | None, ticket: int | None) -> None:
    """Undo an acquisition that was interrupted, however far it got.

    Args:
        limit_ids: the limits that it asked for; None if the caller does not know them because of the interruption.
        ticket: the ticket of its queued request; None if it was not queued, or the caller does not know it.
    """
    if ticket is not None:
        own = _own_waiter(txn, ticket, owner_id, serial)
        waiters = [] if own is None else [own]
    elif limit_ids is None:  # the interruption may have come between the commit and the record of it
        waiters = [waiter for waiter in txn.ledger.waiters_of(owner_id) if waiter.serial == serial]
    else:
        waiters = []
    for waiter in waiters:
        if waiter.state == WAITING:
            for limit_id in waiter.queued_on:
                txn.ledger.record_refusal(limit_id, txn.wall)  # it gave up
        _remove(txn, waiter)
    if limit_ids is None:
        limit_ids = [limit_id for limit_id, held in txn.ledger.held_by(owner_id) if held == serial]
    undo_grant(txn, limit_ids, owner_id, serial)


def undo_grant(txn: Transaction, limit_ids: Iterable[int], owner_id: int, serial: int) -> None:
    """Release whatever an acquisition holds of these limits."""
    released = [limit_id for limit_id in limit_ids if txn.release(limit_id, owner_id, serial)]
    admit_waiters(txn, released)


def reap(txn: Transaction, owner: OwnerRow, *, was_seen: bool) -> None:
    """Release everything that a dead process held or waited for.

    Args:
        was_seen: whether a process noticed the death as it happened; if not, the history does not tell the moment. The
            end of a command, which its `localconc run` is about to report, is no sign that it was killed.
    """
    ending = UNSEEN if not was_seen else None if owner.is_command else KILLED
    _remove_owner(txn, owner.id, txn.ledger.held_by(owner.id), ending)


def leave(txn: Transaction, owner_id: int, *, may_hold: bool) -> None:
    """Take a process that ends in good order out of the store, with the requests of its threads.

    Args:
        may_hold: whether it may still hold slots, because a thread was admitted at the last moment. Finding them takes
            a look at all holders.
    """
    _remove_owner(txn, owner_id, txn.ledger.held_by(owner_id) if may_hold else [], None)


def _remove_owner(txn: Transaction, owner_id: int, held: list[tuple[int, int]], ending: int | None) -> None:
    """Delete all rows of a process, and only then admit others: one of its own waiters could be next."""
    touched = []
    for limit_id, serial in held:
        if ending is not None:
            txn.ledger.set_ending(limit_id, owner_id, serial, ending)
        txn.release(limit_id, owner_id, serial)
        touched.append(limit_id)
    for waiter in txn.ledger.waiters_of(owner_id):
        touched += waiter.queued_on
        txn.ledger.delete_waiter(waiter.ticket)
    owner_rows.delete(txn.ledger.connection, owner_id)
    admit_waiters(txn, touched)


def pass_over(
    txn: Transaction, owner: OwnerRow, serial: int, limit_ids: Collection[int], is_stopped: Callable[[int], bool]
) -> bool:
    """Take slots back from a stopped process that has not picked them up; return whether it still had them.

    The request keeps its ticket. When the process runs again, it finds that it was passed over, and joins the queue at
    its old place.

    Args:
        is_stopped: tells whether an owner is stopped. Stopped owners that are next are passed over, too.
    """
    rows = listings.queued_holders(txn.ledger.connection, owner.id, serial, limit_ids)
    if len(rows) != len(limit_ids):
        return False  # the process has released them, or another one has taken them back
    _take_back(txn, owner.id, serial, rows)
    touched = [*limit_ids]
    for limit_id in limit_ids:
        touched += _pass_over_next(txn, limit_id, is_stopped)
    admit_waiters(txn, touched)
    return True


def _take_back(txn: Transaction, owner_id: int, serial: int, rows: list[QueuedHolder]) -> None:
    """Delete the holders of one acquisition as if they had never been, and note its request as passed over."""
    for row in rows:
        limit = txn.ledger.limit_with_id(row.limit_id)
        holder = txn.ledger.holder(row.limit_id, owner_id, serial)
        if limit is not None and holder is not None and holder[1] is not None:
            empty_at = max(txn.now, limit.empty_at - row.slots / limit.decay)
            txn.set_empty_at(row.limit_id, empty_at)
            txn.ledger.drain_sooner(row.limit_id, holder[1], max(0.0, limit.empty_at - empty_at))
        txn.ledger.delete_holder(row.limit_id, owner_id, serial)
    first, limit_ids = rows[0], [row.limit_id for row in rows]
    names = tuple(limit.name for limit in txn.ledger.limits_with_ids(limit_ids))
    request = Request(names=names, slots=first.slots, mode=CONCURRENCY, label=first.label or "")
    txn.ledger.delete_waiter(first.ticket)
    txn.ledger.insert_waiter(
        WaiterRow(
            ticket=first.ticket,
            owner_id=owner_id,
            serial=serial,
            state=PASSED_OVER,
            slots=first.slots,
            limit_id=first.limit_id,
            limit_ids=limits_text(limit_ids),
            request=request.to_text(),
            thread=first.thread or "",
            context=first.context or 0,
            has_end=1,
            stops="",
            address="",
            secret=0,
            waiting_since=first.acquired_wall - first.waited_seconds,
            enqueued_boot=first.acquired_boot - first.waited_seconds,
        )
    )


def _pass_over_next(txn: Transaction, limit_id: int, is_stopped: Callable[[int], bool]) -> list[int]:
    """Pass over stopped waiters at the head of a queue; return the limits on which they were queued.

    Each of them would keep the others waiting for as long as the first one did. A wakeup stays in the mailbox of a
    stopped process until it runs again, and it looks at the store then.
    """
    touched = []
    for _ in range(MAX_PASSED_OVER_TOGETHER):
        waiter = txn.ledger.first_waiter(limit_id)
        if waiter is None or not is_stopped(waiter.owner_id):
            break
        txn.ledger.pass_over(waiter)
        txn.to_wake.append((waiter.address, waiter.serial))
        touched += waiter.queued_on
    return touched


def after_reboot(txn: Transaction) -> None:
    """Forget every process of before the reboot; decay and pauses continue by the wall clock."""
    listings.forget_all_owners(txn.ledger.connection)
    for row in txn.ledger.all_limits():
        clocks.restart(txn, row)


def reinsert_grants(
    txn: Transaction, owner_id: int, grants: dict[int, Grant], in_flight: Collection[int]
) -> dict[int, Grant]:
    """Note what a process really holds in a store that replaced the one in which it was granted.

    That may exceed a limit, if other processes were admitted meanwhile, because this process goes on with its work.
    Slots that the store notes for the process, and that it does not hold, are released.

    Args:
        grants: what the process holds, by serial.
        in_flight: acquisitions whose outcome the process does not know yet.

    Returns:
        The grants as the store has them now.
    """
    noted = {(limit_id, serial) for limit_id, serial in txn.ledger.held_by(owner_id)}
    touched = []
    reinserted = {}
    for serial, grant in grants.items():
        refs, numbers = [], []
        for taken, own in zip(grant.refs, grant.numbers or [None] * len(grant.refs), strict=True):
            row = txn.ledger.limit_named(taken.name)
            if row is None or not row.active:
                continue
            ref = LimitRef.of(row)
            refs.append(ref)
            numbers.append(own)
            if (row.id, serial) in noted:
                noted.discard((row.id, serial))
                continue
            drained_at = None
            if row.decay > 0:
                drained_at = rules.empty_at_after(row.empty_at, grant.acquired_boot, grant.slots, row.decay)
                txn.set_empty_at(row.id, drained_at)
            requester = Requester(owner_id, serial, grant.thread, grant.label, grant.context)
            txn.ledger.insert_holder(
                ref, requester, grant.slots, grant.acquired_wall, grant.acquired_boot, drained_at, grant.waited_seconds
            )
            if own:
                txn.ledger.set_numbers(row.id, owner_id, serial, ",".join(map(str, own)))
        reinserted[serial] = grant._replace(refs=tuple(refs), numbers=tuple(numbers) if grant.numbers else ())
    for limit_id, serial in noted:
        if serial not in grants and serial not in in_flight:
            txn.release(limit_id, owner_id, serial)
            touched.append(limit_id)
    admit_waiters(txn, touched)
    return reinserted


def repair_rows(txn: Transaction) -> None:
    """Make the totals equal the rows of the holders, and delete rows of unknown processes; then admit waiters."""
    connection = txn.ledger.connection
    for limit_id, owner_id, serial in integrity.holders_without_owner(connection):
        txn.release(limit_id, owner_id, serial)
        txn.touched_limits.append(limit_id)
    for limit_id, ticket in integrity.places_without_waiter(connection):
        integrity.delete_place(connection, limit_id, ticket)
        txn.touched_limits.append(limit_id)
    for limit_id, _, _, held in integrity.totals_that_differ(connection):
        integrity.set_total(connection, limit_id, held)
        txn.touched_limits.append(limit_id)
