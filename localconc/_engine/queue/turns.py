"""Whose turn it is, if there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.core import rules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from localconc._engine.core.records import LimitRow, WaiterRow
    from localconc._engine.store.rows.ledger import Ledger


class Blocked(NamedTuple):
    """Why a request can't be admitted now; `until` tells when it can if only time stands before it, else None."""

    until: float | None


def blocked(slots: int, rows: Iterable[LimitRow], now: float, ticket: int | None) -> Blocked | None:
    """Return why a request can't be admitted now: a queue ahead of it, a pause, or no room; None if it can be."""
    for row in rows:
        if row.first_ticket is not None and (ticket is None or row.first_ticket < ticket):
            return Blocked(None)
    return out_of_capacity(slots, rows, now)


def out_of_capacity(slots: int, rows: Iterable[LimitRow], now: float) -> Blocked | None:
    """Return why a request that is next can't be admitted now: a pause, or no room; None if it can be."""
    until = now
    for row in rows:
        if row.limit == 0:
            return Blocked(None)
        if row.paused_until is not None:
            until = max(until, row.paused_until)
        if row.decay > 0:
            if not rules.fits(rules.occupied_slots(row.empty_at, now, row.decay), slots, row.limit):
                until = max(until, rules.fits_at(row.empty_at, slots, row.limit, row.decay))
        elif not rules.fits(row.held, slots, row.limit):
            return Blocked(None)
    return Blocked(until) if until > now else None


class First(NamedTuple):
    """The first waiter of a limit, all limits that it is queued on, and what keeps it from being admitted."""

    waiter: WaiterRow
    rows: list[LimitRow]
    block: Blocked | None


class Queues:
    """The first waiters of limits at one moment.

    A request over many limits may be the first on each of them. So this reads each limit, and judges each waiter, once
    until an admission changes their limits. Otherwise a hand-over of n limits would read n rows n times.

    Args:
        rows: limits that were read at this moment already.
    """

    def __init__(self, ledger: Ledger, now: float, rows: Iterable[LimitRow] = ()) -> None:
        self._ledger = ledger
        self._now = now
        self._rows: dict[int, LimitRow | None] = {row.id: row for row in rows}
        self._judged: dict[int, First] = {}

    def first(self, limit_id: int) -> First | None:
        """Return the first in the queue of a limit."""
        known = self.known_first(limit_id)
        if known is not None:
            return known
        waiter = self._ledger.first_waiter(limit_id)
        if waiter is None:
            return None
        rows = [row for row in map(self._row, waiter.queued_on) if row is not None]
        first = First(waiter, rows, blocked(waiter.slots, rows, self._now, waiter.ticket))
        self._judged[waiter.ticket] = first
        return first

    def known_first(self, limit_id: int) -> First | None:
        """Return the first in the queue of a limit, if it was judged before; None asks for a closer look."""
        row = self._rows.get(limit_id)
        return None if row is None or row.first_ticket is None else self._judged.get(row.first_ticket)

    def forget(self, limit_ids: Collection[int]) -> None:
        """Forget what an admission from the queues of these limits has changed."""
        for limit_id in limit_ids:
            self._rows.pop(limit_id, None)
        changed = set(limit_ids)
        for ticket, first in tuple(self._judged.items()):
            if not changed.isdisjoint(first.waiter.queued_on):
                del self._judged[ticket]

    def _row(self, limit_id: int) -> LimitRow | None:
        if limit_id not in self._rows:
            self._rows[limit_id] = self._ledger.limit_with_id(limit_id)
        return self._rows[limit_id]
