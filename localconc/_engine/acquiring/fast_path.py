"""The fast path: requests that the fast statements serve, in transactions that consist of them alone."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, NamedTuple

from localconc._engine.core.calls import CONCURRENCY, RATE_LIMIT
from localconc._engine.core.records import Grant
from localconc._engine.store.rows.statements import ACQUIRE_FAST, RATE_LIMIT_FAST, RELEASE_FAST

if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Connection

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
    """What this process remembers of the requests that the fast statements may serve.

    Attributes:
        by_request: how they serve the next such request, because the last one was admitted at once.
        to_queue: how they queue a simple request: its limit, and its text.
        contended: names of limits that a request waited for recently.
    """

    def __init__(self) -> None:
        self._limits: dict[str, LimitRef] = {}  # enforced ones, as they were when a request last went by the rules
        self.by_request: dict[Request, FastPath] = {}
        self.to_queue: dict[Request, tuple[LimitRef, str]] = {}
        self.contended: set[str] = set()

    def forget(self) -> None:
        """Forget everything, so that the rules look at each limit anew."""
        for known in (self._limits, self.by_request, self.to_queue, self.contended):
            known.clear()

    def learn(self, refs: Iterable[LimitRef]) -> None:
        """Remember limits as they are now."""
        if len(self._limits) >= _MAX_REMEMBERED:
            self._limits.clear()
        self._limits.update((ref.name, ref) for ref in refs)

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

    def find_to_queue(self, request: Request) -> tuple[LimitRef, str] | None:
        """Return how the fast statements queue a request, and remember it; None if the rules are needed."""
        ref = self._limits.get(request.names[0])
        if ref is None or request.mode != CONCURRENCY or len(request.names) > 1 or request.slots > max(ref.limit, 1):
            return None
        if ref.decay or (request.limit is not None and (request.limit != ref.limit or request.slot_decay_per_second)):
            return None
        if len(self.to_queue) >= _MAX_REMEMBERED:
            self.to_queue.clear()
        self.to_queue[request] = ref, request.to_text()
        return self.to_queue[request]

    def forget_to_queue(self, request: Request) -> None:
        """Forget how a request is queued, because its limit may have changed; the rules look at that anew."""
        self._limits.pop(request.names[0], None)
        self.to_queue.pop(request, None)

    def note_contention(self, request: Request) -> None:
        """Let the fast statements try no more until such a request is admitted at once, because this one waits."""
        if len(self.contended) >= _MAX_REMEMBERED:
            self.contended.clear()
        self.contended.update(request.names)
        self.by_request.pop(request, None)


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
