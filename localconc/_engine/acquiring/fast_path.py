"""The two transactions of the contended path, which use the fast statements."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from localconc._engine.acquiring.terms import Queued
from localconc._engine.core.records import Grant, Requester
from localconc._engine.queue import admission
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.store.rows.statements import ACQUIRE_FAST, ADMIT_FAST, ENQUEUE_FAST, HAS_QUEUE, RELEASE
from localconc._engine.store.store import Transaction

if TYPE_CHECKING:
    from sqlite3 import Connection

    from localconc._engine.acquiring.terms import WaitTerms
    from localconc._engine.core.calls import Request
    from localconc._engine.core.clock import Clock
    from localconc._engine.core.records import LimitRef
    from localconc._engine.holding.holdings import Handle
    from localconc._engine.liveness.membership import Membership


def enqueue_or_acquire(
    connection: Connection, what: tuple[Membership, Clock, Request, Handle, LimitRef, WaitTerms]
) -> Grant | Queued | None:
    """Enqueue a simple request, or acquire its slots if there is room; return None if neither applies."""
    membership, clock, request, handle, ref, terms = what
    owner_id, serial = membership.owner_id, handle.serial
    thread, label, context = handle.thread, handle.label, handle.context
    wall, now, slots, limit_id = clock.wall(), clock.now(), request.slots, ref.limit_id
    secret = int.from_bytes(os.urandom(7)) + 1
    waiter = (owner_id, serial, slots, request.to_text(), thread, context, terms.has_end, terms.mailbox.address, secret)
    cursor = connection.execute(ENQUEUE_FAST, (*waiter, wall, now, limit_id, ref.revision, now, slots))
    if cursor.rowcount == 1:
        assert cursor.lastrowid is not None
        requester = Requester(owner_id, serial, thread, label, context)
        return Queued(cursor.lastrowid, secret, requester, (ref,), terms, True, now, None, 0.0)
    holder = (limit_id, ref.revision, ref.limit, owner_id, serial, slots, wall, now, thread, label or None, context)
    if connection.execute(ACQUIRE_FAST, holder).rowcount == 1:
        return Grant((ref,), slots, wall, now, 0.0, thread, label, context)
    return None


def release_and_admit(
    connection: Connection, what: tuple[Membership, Clock, dict[int, Grant], int]
) -> tuple[float, tuple[str, tuple[int, int, float, float]] | None, Transaction | None] | None:
    """Release the slots of one limit and admit the first waiter; return None if the rules are needed.

    Returns:
        The moment, the wakeup to send (None without a waiter), and the transaction in which the rules admitted more.
    """
    membership, clock, grants, serial = what
    wall, now = clock.wall(), clock.now()
    limit_id = grants[serial].refs[0].limit_id  # read here: this process may just have joined another store
    if connection.execute(RELEASE, (now, limit_id, membership.owner_id, serial)).rowcount != 1:
        return None
    row = connection.execute(ADMIT_FAST, (wall, now, limit_id, limit_id, now, limit_id)).fetchone()
    if row is None:
        woken, may_admit_more = None, connection.execute(HAS_QUEUE, (limit_id,)).fetchone() is not None
    else:
        room, slots, _, waiter_serial, address, secret, _ = row
        woken, may_admit_more = (address, (waiter_serial, secret, wall, now)), room > slots
    more = None
    if may_admit_more:
        more = Transaction(Ledger(connection), now, wall)
        admission.admit_waiters(more, [limit_id])
    return now, woken, more
