"""Queueing or refusing a request that the rules don't admit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from localconc._engine.acquiring import contexts
from localconc._engine.acquiring.deadlocked import Deadlocked, would_deadlock
from localconc._engine.acquiring.terms import Queued, Refused
from localconc._engine.core.calls import CONCURRENCY
from localconc._engine.core.records import LimitRef, WaiterRow, limits_text
from localconc._engine.queue import admission
from localconc._engine.queue.explain import Caller, LedgerAt, explain
from localconc._engine.store.rows import owner_rows
from localconc._engine.store.rows.schema import WAITING

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
