"""The fast path: requests that the fast statements serve, in transactions that consist of them alone."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.acquiring.terms import Queued
from localconc._engine.core.calls import RATE_LIMIT
from localconc._engine.core.records import Grant, Requester
from localconc._engine.queue import admission
from localconc._engine.store.rows.ledger import Ledger
from localconc._engine.store.rows.statements import (
    ACQUIRE_FAST,
    ADMIT_FAST,
    ENQUEUE_FAST,
    HAS_QUEUE,
    RATE_LIMIT_FAST,
    RELEASE,
    RELEASE_FAST,
)
from localconc._engine.store.store import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Connection

    from localconc._engine.acquiring.terms import WaitTerms
    from localconc._engine.core.calls import Request
    from localconc._engine.core.clock import Clock
    from localconc._engine.core.records import LimitRef
    from localconc._engine.holding.holdings import Handle
    from localconc._engine.liveness.membership import Membership

#: How many limits, how many different requests, and how many contended limits a process remembers.
_MAX_REMEMBERED: Final = 10_000


class FastPath(NamedTuple):
    """How the fast statements serve a request.

    Attributes:
        refs: its limits.
        limit_ids: the numbers of those that it holds slots of: none if nobody releases them.
        columns: of each limit, the parameters with which the fast statement begins.
    """

    refs: tuple[LimitRef, ...]
    limit_ids: tuple[int, ...]
    columns: tuple[tuple[int, int, int], ...]


def _fast_path_of(request: Request, refs: tuple[LimitRef, ...]) -> FastPath | None:
    """Return how the fast statements serve a request on limits that are enforced; None if the rules are needed."""
    is_rate_limit, decay = request.mode == RATE_LIMIT, request.slot_decay_per_second
    if not refs or len(refs) < len(request.names):
        return None
    for ref in refs:
        if (
            is_rate_limit != (ref.decay > 0)
            or (request.limit is not None and request.limit != ref.limit)
            or (decay is not None and decay != ref.decay)
        ):
            return None
    limit_ids = () if is_rate_limit else tuple(ref.limit_id for ref in refs)
    return FastPath(refs, limit_ids, tuple((ref.limit_id, ref.revision, ref.limit) for ref in refs))


class FastPaths:
    """What this process remembers of the requests that were admitted at once.

    Attributes:
        limits: enforced limits by name, as they were when a request last went by the rules.
        by_request: how the fast statements serve the next such request.
        contended: names of limits that a request waited for recently. The fast statements would fail.
    """

    def __init__(self) -> None:
        self.limits: dict[str, LimitRef] = {}
        self.by_request: dict[Request, FastPath] = {}
        self.contended: set[str] = set()

    def forget(self) -> None:
        """Forget everything, so that the rules look at each limit anew."""
        self.limits.clear()
        self.by_request.clear()
        self.contended.clear()

    def learn(self, refs: Iterable[LimitRef]) -> None:
        """Remember limits as they are now."""
        if len(self.limits) >= _MAX_REMEMBERED:
            self.limits.clear()
        self.limits.update((ref.name, ref) for ref in refs)

    def remember(self, request: Request, refs: tuple[LimitRef, ...]) -> None:
        """Let the fast statements serve the next such request, because this one was admitted at once."""
        self.contended.difference_update(request.names)
        path = _fast_path_of(request, refs)
        if path is None:
            return
        if len(self.by_request) >= _MAX_REMEMBERED:
            self.by_request.clear()
        self.by_request[request] = path

    def need_rules(self, refs: Iterable[LimitRef]) -> bool:
        """Return whether the release of slots of these limits goes by the rules: they drain, or a request may wait."""
        contended = self.contended
        for ref in refs:  # noqa: SIM110 (`any` with a generator takes three times as long, at each release)
            if ref.decay or ref.name in contended:
                return True
        return False

    def note_contention(self, request: Request) -> None:
        """Let the fast statements try no more until a request is admitted at once, because this one waits."""
        if len(self.contended) >= _MAX_REMEMBERED:
            self.contended.clear()
        self.contended.update(request.names)
        self.by_request.clear()


# What these functions read of this process, they read inside the transaction: it may just have joined another store,
# where limits and owners have other numbers.


def acquire_all(connection: Connection, what: tuple[Membership, Clock, FastPaths, Request, Handle]) -> Grant | None:
    """Acquire the slots of several limits; return None, with nothing done, if the rules are needed."""
    membership, clock, paths, request, handle = what
    path = paths.by_request.get(request)
    if path is None:
        return None
    wall, now, slots = clock.wall(), clock.now(), request.slots
    thread, label, context = handle.thread, handle.label, handle.context
    handle.limit_ids = path.limit_ids
    more = (membership.owner_id, handle.serial, slots, wall, now, thread, label or None, context)
    statement = ACQUIRE_FAST if path.limit_ids else RATE_LIMIT_FAST
    try:
        is_acquired = connection.executemany(statement, [each + more for each in path.columns]).rowcount
    except sqlite3.IntegrityError:
        is_acquired = -1
    if is_acquired != len(path.limit_ids):
        connection.rollback()
        return None
    return Grant(path.refs, slots, wall, now, 0.0, thread, label, context)


def release_all(connection: Connection, what: tuple[Membership, float, dict[int, Grant], int]) -> bool:
    """Release the slots of several limits; return False, with nothing done, if the rules are needed."""
    membership, now, grants, serial = what
    grant = grants.get(serial)
    if grant is None:
        return False  # this is a forked child, which holds nothing
    rows = [(now, ref.limit_id, membership.owner_id, serial) for ref in grant.refs]
    is_released = connection.executemany(RELEASE_FAST, rows).rowcount == len(rows)
    if not is_released:
        connection.rollback()
    return is_released


def enqueue_or_acquire(
    connection: Connection, what: tuple[Membership, Clock, Request, Handle, FastPaths, WaitTerms, LimitRef]
) -> Grant | Queued | None:
    """Enqueue a simple request on a limit, or acquire its slots if there is room; return None if neither applies."""
    membership, clock, request, handle, paths, terms, ref = what
    if paths.limits.get(ref.name) is not ref:
        return None  # another thread has learned of a change since the caller looked whether the request is simple
    handle.limit_ids = None
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

    It does what `Transaction.release` and `Transaction.admit_next` do, without the objects.

    Returns:
        The moment, the wakeup to send (None without a waiter), and the transaction in which the rules admitted more.
    """
    membership, clock, grants, serial = what
    wall, now = clock.wall(), clock.now()
    grant = grants.get(serial)
    if grant is None or len(grant.refs) != 1:
        return None  # another thread has released it meanwhile, or the store was replaced, and lacks the limit
    limit_id = grant.refs[0].limit_id
    if connection.execute(RELEASE, (now, limit_id, membership.owner_id, serial)).rowcount != 1:
        return None
    row = connection.execute(ADMIT_FAST, (wall, now, limit_id, limit_id, now, limit_id)).fetchone()
    if row is None:
        woken, may_admit_more = None, connection.execute(HAS_QUEUE, (limit_id,)).fetchone() is not None
    else:
        free, slots, address, waiter_serial, secret = row
        woken, may_admit_more = (address, (waiter_serial, secret, wall, now)), free > slots
    more = None
    if may_admit_more:
        more = Transaction(Ledger(connection), now, wall)
        admission.admit_waiters(more, [limit_id])
    return now, woken, more
