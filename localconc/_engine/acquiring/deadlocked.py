"""Whether a request would wait for something that its own caller holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.queue import deadlocks
from localconc._engine.store.rows.schema import MAX_TICKET

if TYPE_CHECKING:
    from localconc._engine.core.calls import Request
    from localconc._engine.core.records import Requester
    from localconc._engine.store.store import Transaction


class Deadlocked(NamedTuple):
    """A request that was not queued, because it would have waited for something that its own caller holds.

    Attributes:
        text: the circle, in words.
        owner_ids: the processes in it; if one of them is dead, there is no circle.
    """

    text: str
    owner_ids: tuple[int, ...]


def would_deadlock(
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
