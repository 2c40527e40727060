"""Deadlocks: requests that could only be admitted after their own callers have released something.

The rule is exact. Assume that every caller who does not wait releases all that it holds, that every request that can be
admitted then is, and its caller releases as well, and so on: the requests that are left wait forever. Requests with an
end (a time-out, retries) are left out, and so are limits with decay, paused limits, and limits of 0 slots: they pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from localconc._engine.core.arguments import printable
from localconc._engine.core.calls import Request
from localconc._engine.store.rows import listings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from localconc._engine.store.rows.ledger import Ledger

#: A thread or task: its owner, and the number that identifies it in that process.
Context = tuple[int, int]


class Waiting(NamedTuple):
    """A request without an end, with the contexts that hold something and can't continue while it waits."""

    ticket: int
    contexts: tuple[Context, ...]
    slots: int
    limit_ids: tuple[int, ...]
    who: str
    names: tuple[str, ...]


class Held(NamedTuple):
    """Slots of one limit that a thread or task holds and no other one can release."""

    limit_id: int
    context: Context
    slots: int
    name: str
    since: str


def find_stuck(waiting: Iterable[Waiting], held: Sequence[Held], sizes: Mapping[int, int]) -> list[Waiting]:
    """Return the requests that wait forever, in the order of arrival.

    Args:
        waiting: the requests without an end.
        held: what their contexts hold of the limits.
        sizes: the slots of each limit that counts; others pass.
    """
    left = sorted(waiting)
    while True:
        goes_on = next((each for each in left if _can_be_admitted(each, left, held, sizes)), None)
        if goes_on is None:
            return left
        left.remove(goes_on)


def _can_be_admitted(request: Waiting, left: list[Waiting], held: Sequence[Held], sizes: Mapping[int, int]) -> bool:
    """Return whether a request is admitted once every context that is not left waiting has released all it holds."""
    stopped = {context for each in left for context in each.contexts}
    for limit_id in request.limit_ids:
        if limit_id not in sizes:
            continue
        if any(each.ticket < request.ticket and limit_id in each.limit_ids for each in left):
            return False
        kept = sum(each.slots for each in held if each.limit_id == limit_id and each.context in stopped)
        if kept + request.slots > sizes[limit_id]:
            return False
    return True


def circle_of(request: Waiting, stuck: Sequence[Waiting], held: Sequence[Held]) -> list[Waiting]:
    """Return a circle of requests, each of which waits for the next one, that a stuck request leads into."""
    path: list[Waiting] = []
    current: Waiting | None = request
    while current is not None and current not in path:
        path.append(current)
        current = _waits_for(current, stuck, held)
    return path if current is None else path[path.index(current) :]


def _waits_for(request: Waiting, stuck: Sequence[Waiting], held: Sequence[Held]) -> Waiting | None:
    """Return the request whose caller holds what another one waits for, or that is ahead of it in a queue."""
    for each in held:
        if each.limit_id in request.limit_ids:
            holder = next((other for other in stuck if each.context in other.contexts), None)
            if holder is not None:
                return holder
    ahead = (each for each in stuck if each.ticket < request.ticket and set(each.limit_ids) & set(request.limit_ids))
    return next(ahead, None)


def described(circle: Sequence[Waiting], held: Sequence[Held]) -> str:
    """Return a circle in words: what each caller holds, since when, and what it waits for."""
    return "; ".join(_described(each, held) for each in circle)


def _described(request: Waiting, held: Sequence[Held]) -> str:
    holds = [
        f"{each.name!r} ({each.slots} slot(s) since {each.since})" for each in held if each.context in request.contexts
    ]
    wanted = ", ".join(map(repr, request.names))
    has = f" holds {', '.join(dict.fromkeys(holds))} and" if holds else ""
    return f"{request.who}{has} waits for {request.slots} slot(s) of {wanted}"


# ---- from the rows -----------------------------------------------------------------------------------------------


class Situation(NamedTuple):
    """All requests without an end, with what their contexts hold."""

    waiting: list[Waiting]
    held: list[Held]
    sizes: dict[int, int]


def situation(
    ledger: Ledger, now: float, more: Iterable[Waiting] = (), being_released: Collection[tuple[int, int]] = ()
) -> Situation:
    """Read the requests without an end, and what stands in their way.

    Args:
        more: requests that are about to be queued.
        being_released: owners and serials of holders that are known to be on their way out.
    """
    connection = ledger.connection
    waiting = [_waiting(entry) for entry in listings.endless_waiters(connection)]
    waiting += more
    limit_ids = {limit_id for each in waiting for limit_id in each.limit_ids}
    rows = ledger.limits_with_ids(sorted(limit_ids))
    sizes = {
        row.id: row.limit
        for row in rows
        if row.decay == 0 and row.limit > 0 and (row.paused_until is None or row.paused_until <= now)
    }
    stopped = {context for each in waiting for context in each.contexts}
    held = [
        Held(entry.limit_id, (entry.owner_id, entry.context), entry.slots, entry.name, entry.shown_since())
        for limit_id in sorted(sizes)
        for entry in listings.holders(connection, limit_id)
        if (entry.owner_id, entry.context) in stopped and (entry.owner_id, entry.serial) not in being_released
    ]
    return Situation(waiting, held, sizes)


def _waiting(entry: listings.EndlessWaiter) -> Waiting:
    contexts = tuple((entry.owner_id, int(context)) for context in entry.stops.split(",") if context)
    who = f"pid {entry.pid}, {printable(entry.thread)}"
    return Waiting(entry.ticket, contexts, entry.slots, entry.queued_on, who, Request.from_text(entry.request).names)


class Circle(NamedTuple):
    """Requests that wait for each other forever: the limits that they wait for, and the circle in words."""

    names: frozenset[str]
    text: str


def circles(ledger: Ledger, now: float) -> list[Circle]:
    """Return every circle of requests that wait forever."""
    found = situation(ledger, now)
    stuck = find_stuck(found.waiting, found.held, found.sizes)
    found_circles: list[Circle] = []
    told: set[int] = set()
    for request in stuck:
        circle = circle_of(request, stuck, found.held)
        tickets = frozenset(each.ticket for each in circle)
        if not tickets & told:
            told |= tickets
            names = frozenset(name for each in circle for name in each.names)
            found_circles.append(Circle(names, described(circle, found.held)))
    return found_circles
