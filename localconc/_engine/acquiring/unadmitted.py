"""What becomes of a request that the rules don't admit: a place in the queue, or a refusal."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from localconc._engine.acquiring.deadlocked import Deadlocked, would_deadlock
from localconc._engine.acquiring.terms import Queued, Refused
from localconc._engine.core.calls import CONCURRENCY
from localconc._engine.core.records import LimitRef
from localconc._engine.queue import admission
from localconc._engine.queue.explain import Caller, Moment, explain
from localconc._engine.store.rows import owner_rows

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
    """Enqueue a request by the rules, unless it would wait for its own caller.

    Args:
        due_at: when it can be admitted, if only time stands before it.
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
    retry_after = admission.deny(txn, request, rows, counts=not is_simple)  # else its trigger counts it
    ticket = txn.ledger.insert_waiter(
        requester,
        request,
        ids,
        terms.mailbox.address,
        secret,
        txn.wall,
        txn.now,
        is_simple=is_simple,
        has_end=terms.has_end,
        stops=",".join(map(str, terms.stops)),
    )
    refs = tuple(map(LimitRef.of, rows))
    return Queued(ticket, secret, requester, refs, terms, is_simple, txn.now, due_at, retry_after)


def refuse(txn: Transaction, request: Request, requester: Requester, rows: list[LimitRow], is_retry: bool) -> Refused:
    """Count a refusal, unless it is one more try of a request that was counted; say why."""
    if not is_retry:
        admission.deny(txn, request, rows)
        for row in rows:
            txn.ledger.record_refusal(row.id, txn.wall)
    caller = running_caller(requester)
    limit_ids = [row.id for row in rows]
    reason = explain(Moment(txn.ledger, txn.now, txn.wall), limit_ids, None, caller, request.slots)
    return Refused(reason, limit_ids)


def running_caller(requester: Requester) -> Caller:
    """Return the caller: the running thread and task, even if another one may release the slots later."""
    asyncio = sys.modules.get("asyncio")
    loop = None if asyncio is None else asyncio._get_running_loop()
    task = None if asyncio is None or loop is None else asyncio.current_task(loop)
    contexts = (threading.get_ident(),) if task is None else (threading.get_ident(), id(task))
    return Caller(requester.owner_id, contexts)
