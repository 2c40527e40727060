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
        owner_ids: the processes that wait in it or behind it; if one of them is dead, there may be no circle.
    """

    text: str
    owner_ids: tuple[int, ...]


def would_deadlock(
    txn: Transaction,
    request: Request,
    requester: Requester,
    limit_ids: list[int],
    stops: tuple[int, ...],
    ticket: int = MAX_TICKET,
) -> Deadlocked | None:
    """Return the circle that a request would close; None if it would not wait for its own caller.

    Args:
        stops: the threads and tasks of this process that hold something and can't go on while it waits.
        ticket: its place in the order of arrival, if it has one already.
    """
    contexts = tuple((requester.owner_id, context) for context in stops)
    caller = f"this very thread or task ({requester.thread})"
    asked = deadlocks.Waiting(
        ticket, requester.owner_id, contexts, request.slots, tuple(limit_ids), caller, request.to_text()
    )
    waiting, held, sizes = deadlocks.situation(txn.ledger, [asked])
    stuck = deadlocks.find_stuck(waiting, held, sizes)
    if asked not in stuck:
        return None
    circle = deadlocks.circle_of(asked, stuck, held)
    owner_ids = {each.owner_id for each in stuck} - {requester.owner_id}
    return Deadlocked(deadlocks.described(circle, held), tuple(owner_ids))
