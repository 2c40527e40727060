"""Changes to the definition of a limit, or to what is occupied of it, by operators or by calls with `limit=`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4  # here, because other processes wait for a transaction that defines a limit

from localconc._engine.core import rules
from localconc._engine.store.rows.schema import OPERATOR

if TYPE_CHECKING:
    from localconc._engine.core.records import LimitRow
    from localconc._engine.store.store import Transaction


def define(
    txn: Transaction,
    name: str,
    *,
    limit: int,
    active: bool,
    configured: bool,
    declared: bool,
    decay: float,
    identity: UUID | None = None,
    created: float | None = None,
) -> LimitRow:
    """Create a limit."""
    row = txn.ledger.insert_limit(
        (identity or uuid4()).bytes,
        name,
        limit,
        active=active,
        configured=configured,
        declared=declared,
        decay=decay,
        created=txn.wall if created is None else created,
    )
    log_definition(txn, row)
    if active:
        txn.stale_tickets += txn.ledger.tickets_naming(name)
    return row


def redefine(txn: Transaction, old: LimitRow, new: LimitRow) -> LimitRow:
    """Change a definition, convert what is occupied to a new decay, and mark the waiters for reevaluation."""
    new = new._replace(updated=txn.wall)
    txn.ledger.update_limit(new)
    if new.decay != old.decay:
        _carry_over(txn, old, new.decay)
    if new.name != old.name:
        txn.stale_tickets += txn.ledger.tickets_naming(old.name)
        if old.configured:
            txn.definitions.append({"name": old.name, "deleted": True})
    log_definition(txn, new)
    txn.touched_limits.append(new.id)
    txn.stale_tickets += txn.ledger.tickets_in_queue(new.id)
    if new.active and (not old.active or new.name != old.name):
        txn.stale_tickets += txn.ledger.tickets_naming(new.name)
    row = txn.ledger.limit_with_id(new.id)
    assert row is not None
    return row


def undefine(txn: Transaction, row: LimitRow) -> None:
    """Delete a limit, and mark the waiters that name it for reevaluation."""
    txn.stale_tickets += txn.ledger.tickets_in_queue(row.id)
    txn.stale_tickets += txn.ledger.tickets_naming(row.name)
    _release_all(txn, row)
    txn.ledger.delete_limit(row.id)
    if row.configured:
        txn.definitions.append({"name": row.name, "deleted": True})
        txn.is_durable = True


def log_definition(txn: Transaction, row: LimitRow) -> None:
    """Let the transaction write a definition beside the database as well, where it survives the loss of it.

    If an operator declared the limit, the call returns after the definition is on the disk. A limit that a call's
    `limit=` created is not synced, because the same call would create it again.
    """
    if row.configured:
        txn.definitions.append(
            {
                "name": row.name,
                "id": str(UUID(bytes=row.uuid)),
                "limit": row.limit,
                "active": bool(row.active),
                "slot_decay_per_second": row.decay,
                "created": row.created,
                "declared": bool(row.declared),
            }
        )
        txn.is_durable = txn.is_durable or bool(row.declared)


def _carry_over(txn: Transaction, row: LimitRow, decay: float) -> None:
    """Keep the slots that are still occupied when a limit's decay changes, begins or ends."""
    ledger, now = txn.ledger, txn.now
    empty_at = max(now, row.empty_at)
    for owner_id, serial, slots, drained_at in ledger.holders_in_order(row.id):
        if row.decay == 0:  # decay begins: the oldest slots drain first, an operator's before all others
            empty_at += slots / decay
            ledger.resize_holder(row.id, owner_id, serial, slots, empty_at)
        elif decay == 0:  # decay ends: a holder keeps what has not drained until it releases
            left = rules.undrained_seconds(drained_at or now, now, slots, row.decay) * row.decay
            ledger.resize_holder(row.id, owner_id, serial, rules.displayed(left), None)
        else:
            moved = rules.rescaled(drained_at or now, now, row.decay, decay)
            ledger.resize_holder(row.id, owner_id, serial, slots, moved)
    if row.decay == 0:
        ledger.delete_unowned(row.id)
    elif decay > 0:
        empty_at = rules.rescaled(row.empty_at, now, row.decay, decay)
    txn.set_empty_at(row.id, empty_at if decay > 0 else None)


def occupy_by_operator(txn: Transaction, row: LimitRow, slots: int) -> None:
    """Forget every holder, and occupy slots that no process owns."""
    _release_all(txn, row)
    txn.ledger.delete_unowned(row.id)
    if row.decay > 0:
        txn.set_empty_at(row.id, txn.now + slots / row.decay)
    elif slots:
        txn.ledger.insert_unowned(row.id, slots, txn.wall, txn.now)
    txn.touched_limits.append(row.id)


def pause(txn: Transaction, row: LimitRow, seconds: float) -> None:
    """Pause a limit for some seconds; the later end of two pauses counts."""
    until = txn.now + seconds
    if row.paused_until is None or row.paused_until < until:
        txn.ledger.set_pause(row.id, until, txn.wall + seconds)
        txn.touched_limits.append(row.id)  # the first waiter has to set its alarm


def resume(txn: Transaction, row: LimitRow) -> None:
    """End a pause."""
    if row.paused_until is not None:
        txn.ledger.set_pause(row.id, None, None)
        txn.touched_limits.append(row.id)


def _release_all(txn: Transaction, row: LimitRow) -> None:
    for owner_id, serial, _, _ in txn.ledger.holders_in_order(row.id):
        if owner_id != OPERATOR:
            txn.release(row.id, owner_id, serial)
