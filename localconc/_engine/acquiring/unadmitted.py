"""Queueing or refusing a request that the rules don't admit, or that would wait for its own caller."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from localconc._engine.acquiring import contexts
from localconc._engine.acquiring.terms import Deadlocked, Queued, Refused
from localconc._engine.core.calls import CONCURRENCY
from localconc._engine.core.records import LimitRef, WaiterRow, limits_text
from localconc._engine.queue import admission, deadlocks
from localconc._engine.queue.explain import Caller, LedgerAt, explain
from localconc._engine.store.rows import owner_rows
from localconc._engine.store.rows.schema import MAX_TICKET, WAITING

if TYPE_CHECKING:
    from collections.abc import Callable

    from localconc._engine.acquiring.terms import WaitTerms
    from localconc._engine.core.calls import Request
    from localconc._engine.core.records import LimitRow, Requester
    from localconc._engine.store.store import Transaction


def enqueue(
    txn: Transaction,
    request: Request,
    requester: Requester,
    rows: list[LimitRow],
    terms: WaitTerms,
    due_at: float | None,
    being_released: Callable[[], set[int]],
) -> Queued | Deadlocked:
    """Queue a request by the rules, unless it would wait for its own caller.

    Args:
        due_at: when it can be admitted, if it only waits for a moment.
        being_released: returns the acquisitions of this process that the background is about to release.
    """
    ids = [row.id for row in rows]
    if terms.stops and not terms.has_end:
        # Their threads have let go of them. No process is to take them for what this caller holds while it waits.
        owner_rows.let_anyone_release(txn.ledger.connection, requester.owner_id, being_released())
        deadlocked = would_deadlock(txn, request, requester, ids, terms.stops)
        if deadlocked is not None:
            return deadlocked
    secret = int.from_bytes(os.urandom(7)) + 1
    is_simple = len(rows) == 1 and rows[0].decay == 0 and request.mode == CONCURRENCY
    retry_after = admission.deny(txn, request, rows, counts=not is_simple)  # a trigger counts a simple one
    ticket = txn.ledger.insert_waiter(
        WaiterRow(
            ticket=0,
            owner_id=requester.owner_id,
            serial=requester.serial,
            state=WAITING,
            slots=request.slots,
            limit_id=ids[0],
            limit_ids=None if is_simple else limits_text(ids),
            request=request.to_text(),
            thread=requester.thread,
            context=requester.context,
            has_end=terms.has_end,
            stops=",".join(map(str, terms.stops)),
            address=terms.mailbox.address,
            secret=secret,
            waiting_since=txn.wall,
            enqueued_boot=txn.now,
        )
    )
    refs = tuple(map(LimitRef.of, rows))
    return Queued(ticket, secret, requester, refs, terms, is_simple, txn.now, due_at, retry_after)


def refuse(txn: Transaction, request: Request, requester: Requester, rows: list[LimitRow], is_retry: bool) -> Refused:
    """Count a refusal, unless it is one more try of a counted request; return the reason."""
    if not is_retry:
        admission.deny(txn, request, rows)
        for row in rows:
            txn.ledger.record_refusal(row.id, txn.wall)
    caller = running_caller(requester)
    limit_ids = [row.id for row in rows]
    reason = explain(LedgerAt(txn.ledger, txn.now, txn.wall), limit_ids, None, caller, request.slots)
    return Refused(reason, limit_ids)


def running_caller(requester: Requester) -> Caller:
    """Return the caller: the running thread and task, even if another one may release the slots later."""
    return Caller(requester.owner_id, contexts.running())


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
    if not deadlocks.needs_search(txn.ledger, asked):
        return None
    waiting, held, sizes = deadlocks.situation(txn.ledger, [asked])
    stuck = deadlocks.find_stuck(waiting, held, sizes)
    if asked not in stuck:
        return None
    circle = deadlocks.circle_of(asked, stuck, held, sizes)
    owner_ids = {each.owner_id for each in stuck} - {requester.owner_id}
    return Deadlocked(deadlocks.described(circle, held), tuple(owner_ids))
