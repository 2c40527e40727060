"""Creating, changing and deleting limits, with what is occupied of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localconc._engine import rules
from localconc._engine.schema import NOBODY

if TYPE_CHECKING:
    from uuid import UUID

    from localconc._engine.model import LimitRow
    from localconc._engine.turn import Turn


def define(
    turn: Turn,
    name: str,
    *,
    limit: int,
    active: bool,
    configured: bool,
    decay: float,
    identity: UUID | None = None,
    created: float | None = None,
) -> LimitRow:
    """Create a limit."""
    from uuid import uuid4

    uuid = (identity or uuid4()).bytes
    created = turn.wall if created is None else created
    row = turn.ledger.insert_limit(uuid, name, limit, active, configured, decay, created)
    note_definition(turn, row)
    if active:
        turn.unsettled += turn.ledger.tickets_naming(name)
    return row


def redefine(turn: Turn, old: LimitRow, new: LimitRow) -> LimitRow:
    """Change a definition; what is occupied is carried over to a new decay, and those who wait are to be answered."""
    new = new._replace(updated=turn.wall)
    turn.ledger.update_limit(new)
    if new.decay != old.decay:
        _carry_over(turn, old, new.decay)
    if new.name != old.name and old.configured:
        turn.definitions.append({"name": old.name, "deleted": True})
    note_definition(turn, new)
    turn.changed.append(new.id)
    turn.unsettled += turn.ledger.tickets_in_queue(new.id)
    if new.active and (not old.active or new.name != old.name):
        turn.unsettled += turn.ledger.tickets_naming(new.name)
    row = turn.ledger.limit_with_id(new.id)
    assert row is not None
    return row


def undefine(turn: Turn, row: LimitRow) -> None:
    """Delete a limit; those who wait on it are to be answered."""
    turn.unsettled += turn.ledger.tickets_in_queue(row.id)
    _release_everybody(turn, row)
    turn.ledger.delete_limit(row.id)
    if row.configured:
        turn.definitions.append({"name": row.name, "deleted": True})


def note_definition(turn: Turn, row: LimitRow) -> None:
    """Have a definition written beside the database as well, where it survives the loss of it."""
    from uuid import UUID

    if row.configured:
        turn.definitions.append(
            {
                "name": row.name,
                "id": str(UUID(bytes=row.uuid)),
                "limit": row.limit,
                "active": bool(row.active),
                "slot_decay_per_second": row.decay,
                "created": row.created,
            }
        )


def _carry_over(turn: Turn, row: LimitRow, decay: float) -> None:
    """Keep what is still occupied when a limit's decay changes, begins or ends."""
    ledger, now = turn.ledger, turn.now
    empty_at = max(now, row.empty_at)
    for owner_id, serial, slots, drained_at in ledger.holders_in_order(row.id):
        if row.decay == 0:  # begins: the oldest drain first, an operator's before all
            empty_at += slots / decay
            ledger.resize_holder(row.id, owner_id, serial, slots, empty_at)
        elif decay == 0:  # ends: what a holder still occupies stays until it is given back
            left = rules.undrained_seconds(drained_at or now, now, slots, row.decay) * row.decay
            ledger.resize_holder(row.id, owner_id, serial, rules.displayed(left), None)
        else:
            moved = rules.rescaled(drained_at or now, now, row.decay, decay)
            ledger.resize_holder(row.id, owner_id, serial, slots, moved)
    if row.decay == 0:
        ledger.delete_unowned(row.id)
    elif decay > 0:
        empty_at = rules.rescaled(row.empty_at, now, row.decay, decay)
    turn.set_empty_at(row.id, empty_at if decay > 0 else None)


def occupy_by_hand(turn: Turn, row: LimitRow, slots: int) -> None:
    """Forget every holder, and occupy slots that no process owns."""
    _release_everybody(turn, row)
    turn.ledger.delete_unowned(row.id)
    if row.decay > 0:
        turn.set_empty_at(row.id, turn.now + slots / row.decay)
    elif slots:
        turn.ledger.insert_unowned(row.id, slots, turn.wall, turn.now)
    turn.changed.append(row.id)


def _release_everybody(turn: Turn, row: LimitRow) -> None:
    for owner_id, serial, _, _ in turn.ledger.holders_in_order(row.id):
        if owner_id != NOBODY:
            turn.release(row.id, owner_id, serial)
